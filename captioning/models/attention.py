"""`model=attention`: after each word, the LSTM looks at the picture's regions.

Spatial attention (Lu et al. 2017, arXiv 1612.01887, eq. 5-8): the LSTM's output asks, the grid
answers, both make the next word. The answer is gated (Xu et al. 2015, arXiv 1502.03044, 4.2.1) and
does not enter the LSTM again: so a whole caption is read and looks around in a few matrix
products, without a loop over words.
"""

import math

from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning import UserError
from captioning.models.batch_norm import BatchNorm
from captioning.models.decoder import Decoder, State
from captioning.models.dropout import Dropout


class AttentionDecoder(Decoder):
    """Embedding → LSTM → gated attention over regions → logits.

    The regions' mean enters the LSTM's first state. `heads` look at different regions at once.
    Raises UserError where they do not divide `hidden_dim`.
    """

    shared_parts = 1  # regions

    def __init__(
        self,
        vocabulary_size: int,
        feature_dim: int,
        embed_dim: int = 256,
        hidden_dim: int = 256,
        heads: int = 1,
        dropout: float = 0.4,
    ):
        super().__init__()
        if hidden_dim % heads:
            raise UserError(f"model.hidden_dim={hidden_dim} does not split into heads={heads}")
        self.heads = heads
        self.embedding = nn.Embedding(vocabulary_size, embed_dim)
        self.norm = BatchNorm(feature_dim, affine=False)  # the next layer has weights enough
        self.regions = nn.Sequential(
            Dropout(dropout), nn.Linear(feature_dim, hidden_dim), nn.ReLU(), Dropout(dropout)
        )
        self.first = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.lstm = nn.LSTM(embed_dim, hidden_dim, batch_first=True)
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.gate = nn.Linear(hidden_dim, hidden_dim)
        self.said = nn.Linear(hidden_dim, hidden_dim)
        self.seen = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_dim, vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)

    def begin(self, features: Float[Tensor, "batch *region feature"]) -> State:
        """Return regions `[batch region hidden]`, hidden and cell, each `[batch hidden]`.

        Raises UserError for pooled features, which have no regions.
        """
        if features.dim() == 2:
            raise UserError("this model looks at regions of a picture; type encoder.features=grid")
        regions = self.regions(self.norm(features.flatten(0, 1)).view_as(features))
        hidden, cell = self.first(regions.mean(1)).chunk(2, dim=-1)
        return regions, hidden.tanh(), cell

    def decode(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read words; return what the LSTM says and the picture shows, and the new state."""
        regions, hidden, cell = state
        words = self.dropout(self.embedding(tokens))
        said, (hidden, cell) = self.lstm(words, (hidden[None], cell[None]))
        said = self.dropout(said)
        parts = regions.unflatten(-1, (self.heads, -1))
        asking = said.reshape(regions.shape[0], -1, said.shape[-1])  # all sentences of an image
        seen = self._look(asking, parts) @ parts.transpose(1, 2)
        seen = seen.transpose(1, 2).reshape(said.shape)
        both = self.said(said) + self.gate(said).sigmoid() * self.seen(seen)
        return self.dropout(both.tanh()), (regions, hidden[0], cell[0])

    def _look(self, said: Tensor, parts: Tensor) -> Float[Tensor, "batch head time region"]:
        """Return where each word looks, from what the LSTM said of it; sums to 1 over regions."""
        query = self.query(said).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = query @ parts.permute(0, 2, 3, 1)
        return (scores / math.sqrt(parts.shape[-1])).softmax(-1)

    def attention(
        self, features: Float[Tensor, "batch region feature"], tokens: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time region"]:
        """Return where the model looks, after each of the tokens, to choose the next one.

        The mean of the heads; sums to 1 over the regions, which are the grid's rows, one by one.
        """
        regions, hidden, cell = self.begin(features)
        said, _ = self.lstm(self.embedding(tokens), (hidden[None], cell[None]))
        return self._look(said, regions.unflatten(-1, (self.heads, -1))).mean(1)
