"""`model=updown`: one LSTM looks, another one speaks (Anderson et al. 2018, arXiv 1707.07998, 3.2).

Before each word the first LSTM hears the word, the mean region and what the second one said last,
and asks; the regions answer; the second reads question and answer, and says the next word. What
was said decides what is looked at, so there is a loop over words, which does all that it can ahead.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning import UserError
from captioning.models.batch_norm import BatchNorm
from captioning.models.decoder import Decoder, State
from captioning.models.dropout import Dropout


class UpDownDecoder(Decoder):
    """Embedding → attention LSTM → additive attention over regions → language LSTM → logits."""

    shared_parts = 2  # regions and their keys

    def __init__(
        self,
        vocabulary_size: int,
        feature_dim: int,
        embed_dim: int = 256,
        hidden_dim: int = 256,
        dropout: float = 0.4,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embed_dim)
        self.norm = BatchNorm(feature_dim, affine=False)  # the next layer has weights enough
        self.regions = nn.Sequential(
            Dropout(dropout), nn.Linear(feature_dim, hidden_dim), nn.ReLU(), Dropout(dropout)
        )
        # The LSTMs, as the parts of their input products: words can be heard all at once.
        self.heard = nn.Linear(embed_dim + hidden_dim, 4 * hidden_dim)
        self.asking = nn.Linear(2 * hidden_dim, 4 * hidden_dim, bias=False)
        self.saying = nn.Linear(3 * hidden_dim, 4 * hidden_dim)
        size = hidden_dim // 2  # the paper compares question and region in half of 1,000 dimensions
        self.query = nn.Linear(hidden_dim, size)
        self.key = nn.Linear(hidden_dim, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_dim, vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        for product in (self.heard, self.asking, self.saying):
            nn.init.uniform_(product.weight, -(hidden_dim**-0.5), hidden_dim**-0.5)  # as nn.LSTM

    def begin(self, features: Float[Tensor, "batch *region feature"]) -> State:
        """Return regions `[batch region hidden]`, their keys, and four times `[batch hidden]`.

        The four are hidden and cell of the attention LSTM, then of the language LSTM. Raises
        UserError for pooled features, which have no regions.
        """
        if features.dim() == 2:
            raise UserError("this model looks at regions of a picture; type encoder.features=grid")
        regions = self.regions(self.norm(features.flatten(0, 1)).view_as(features))
        zero = torch.zeros_like(regions[:, 0])
        return regions, self.key(regions), zero, zero, zero, zero

    def decode(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read words; return what the language LSTM says, and the new state."""
        said, _, state = self._read(tokens, state)
        return self.dropout(said), state

    def attention(
        self, features: Float[Tensor, "batch region feature"], tokens: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time region"]:
        """Return where the model looks, after each of the tokens, to choose the next one.

        Sums to 1 over the regions, which are the grid's rows, one by one.
        """
        return self._read(tokens, self.begin(features))[1]

    def _read(self, tokens: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        regions, keys, asked, asked_cell, said, said_cell = state
        words = self.dropout(self.embedding(tokens))
        words = words.view(regions.shape[0], -1, *words.shape[1:])  # sentences of an image
        mean = regions.mean(1)[:, None, None].expand(-1, *words.shape[1:3], -1)
        all_said, all_weights = [], []
        for heard in self.heard(torch.cat([words, mean], -1)).flatten(0, 1).unbind(1):
            gates = heard + self.asking(torch.cat([asked, said], -1))
            asked, asked_cell = _remember(gates, asked_cell)
            query = self.query(asked).view(keys.shape[0], -1, 1, keys.shape[-1])
            match = (keys[:, None] + query).tanh_()
            weights = self.score(match)[..., 0].softmax(-1)  # [image sentence region]
            seen = (weights @ regions).flatten(0, 1)
            gates = self.saying(torch.cat([seen, asked, said], -1))
            said, said_cell = _remember(gates, said_cell)
            all_said.append(said)
            all_weights.append(weights.flatten(0, 1))
        state = regions, keys, asked, asked_cell, said, said_cell
        return torch.stack(all_said, 1), torch.stack(all_weights, 1), state


def _remember(gates: Float[Tensor, "batch gates"], cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden and cell state that an LSTM's four gates make of its last cell state."""
    enter, keep, leave, new = gates.chunk(4, -1)
    cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell.tanh(), cell
