"""`model=transformer`: words look back at words and at the regions of the picture, without an LSTM.

Vaswani et al. 2017, arXiv 1706.03762, with the norms first (Xiong et al. 2020, arXiv 2002.04745).
The regions are projected once, as keys and values of all layers alike: so the state holds them
once. The rest of it is what each layer keeps of the words, and grows by one place a word.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from captioning import UserError
from captioning.models.batch_norm import BatchNorm
from captioning.models.decoder import Decoder, State
from captioning.models.dropout import Dropout


class TransformerDecoder(Decoder):
    """Embedding + place → layers of self-attention, attention over regions, dense → logits.

    Pooled features are a single region. Raises UserError where `heads` do not divide `hidden_dim`.
    """

    shared_parts = 1  # regions

    def __init__(
        self,
        vocabulary_size: int,
        feature_dim: int,
        hidden_dim: int = 256,
        num_layers: int = 2,
        heads: int = 4,
        dropout: float = 0.3,
    ):
        super().__init__()
        if hidden_dim % (2 * heads):  # 2: a sine and a cosine
            raise UserError(
                f"model.hidden_dim={hidden_dim} must be a multiple of twice model.heads={heads}"
            )
        self.embedding = nn.Embedding(vocabulary_size, hidden_dim)
        self.norm = BatchNorm(feature_dim, affine=False)  # the next layer has weights enough
        self.regions = nn.Sequential(
            Dropout(dropout), nn.Linear(feature_dim, hidden_dim), nn.ReLU(), Dropout(dropout)
        )
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(Layer(hidden_dim, heads, dropout) for _ in range(num_layers))
        self.last = nn.LayerNorm(hidden_dim)
        self.output = nn.Linear(hidden_dim, vocabulary_size)

    def begin(self, features: Float[Tensor, "batch *region feature"]) -> State:
        """Return regions `[batch region hidden]` and for each layer `[batch past 2*hidden]`.

        The latter are the keys and values of the words read so far: none yet.
        """
        grid = features if features.dim() == 3 else features[:, None]
        regions = self.regions(self.norm(grid.flatten(0, 1)).view_as(grid))
        none = regions.new_zeros(regions.shape[0], 0, 2 * regions.shape[-1])
        return regions, *(none for _ in self.layers)

    def decode(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read words; return what the last layer makes of them, and the new state."""
        regions, *pasts = state
        before, time = pasts[0].shape[1], tokens.shape[1]
        places = torch.arange(before + time, device=tokens.device)
        known = places <= places[before:, None]  # a word looks at those before it and at itself
        words = self.embedding(tokens)
        words = self.dropout(words + waves(places[before:], words.shape[-1]))
        for number, layer in enumerate(self.layers):
            words, pasts[number] = layer(words, pasts[number], regions, known)
        return self.last(words), (regions, *pasts)


class Layer(nn.Module):
    """What a word says after a look back, a look at the picture and a thought; each is added."""

    def __init__(self, hidden_dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(3))
        self.word = nn.Linear(hidden_dim, 3 * hidden_dim)  # query, key and value
        self.told = nn.Linear(hidden_dim, hidden_dim)
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.seen = nn.Linear(hidden_dim, hidden_dim)
        self.think = nn.Sequential(
            nn.Linear(hidden_dim, 4 * hidden_dim), nn.ReLU(), nn.Linear(4 * hidden_dim, hidden_dim)
        )
        self.dropout = Dropout(dropout)

    def forward(
        self,
        words: Float[Tensor, "batch time hidden"],
        past: Float[Tensor, "batch past keyvalue"],
        regions: Float[Tensor, "image region hidden"],
        known: Bool[Tensor, "time all"],
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch all keyvalue"]]:
        """Return the words after this layer, and its keys and values of all words so far."""
        query, key, value = self.word(self.norms[0](words)).chunk(3, -1)
        past = torch.cat([past, torch.cat([key, value], -1)], 1)
        key, value = past.chunk(2, -1)
        words = words + self.dropout(self.told(self._attend(query, key, value, known)))
        query = self.query(self.norms[1](words))
        asking = query.reshape(regions.shape[0], -1, query.shape[-1])  # all sentences of an image
        seen = self._attend(asking, regions, regions).reshape(query.shape)
        words = words + self.dropout(self.seen(seen))
        return words + self.dropout(self.think(self.norms[2](words))), past

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, known: Tensor | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """Every head's mean of the values, by how well its query matches their keys.

        Written out: for so few words torch's fused one is slower in bfloat16 on a CPU.
        """
        query, key, value = (
            one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (query, key, value)
        )
        match = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if known is not None:
            match = match.masked_fill(~known, -torch.inf)
        return (match.softmax(-1) @ value).transpose(1, 2).flatten(2)


def waves(places: Int[Tensor, " time"], size: int) -> Float[Tensor, "time size"]:
    """Return what tells places apart: sines, then cosines, of waves from 2 pi to 20,000 pi long."""
    steps = torch.arange(size // 2, device=places.device) * (-math.log(10_000) / (size // 2))
    angles = places[:, None] * steps.exp()
    return torch.cat([angles.sin(), angles.cos()], -1)
