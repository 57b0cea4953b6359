"""`model=lstm`: the Show-and-Tell decoder (Vinyals et al. 2015, arXiv 1411.4555).

Pooled features enter as the LSTM's first state (init-inject: Tanti et al. 2018,
arXiv 1703.09137, the best of the ways they tried); next-word logits leave.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning.models.decoder import Decoder, State
from captioning.models.dropout import Dropout


class LSTMDecoder(Decoder):
    """Embedding → LSTM → logits, with the picture in the LSTM's first state.

    `tied=True` shares the embedding with the output layer (Press and Wolf 2017, arXiv 1608.05859).
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_dim: int,
        embed_dim: int = 256,
        hidden_dim: int = 256,
        num_layers: int = 1,
        dropout: float = 0.4,
        tied: bool = False,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embed_dim)
        self.image = nn.Sequential(
            nn.BatchNorm1d(feature_dim, affine=False),  # the next layer has weights enough
            Dropout(dropout),
            nn.Linear(feature_dim, 2 * num_layers * hidden_dim),
        )
        self.lstm = nn.LSTM(
            embed_dim,
            hidden_dim,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.dropout = Dropout(dropout)
        self.narrow = nn.Linear(hidden_dim, embed_dim) if tied else nn.Identity()
        self.output = nn.Linear(embed_dim if tied else hidden_dim, vocabulary_size)
        if tied:
            self.output.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)

    def begin(self, features: Float[Tensor, "batch *region feature"]) -> State:
        """Return the state before the first word: hidden and cell, each `[batch layer hidden]`."""
        pooled = features if features.dim() == 2 else features.mean(dim=1)
        layers, hidden = self.lstm.num_layers, self.lstm.hidden_size
        state = self.image(pooled).unflatten(1, (2, layers, hidden))
        return state[:, 0].tanh(), state[:, 1]

    def read(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read words; return what the LSTM says and its new state."""
        words = self.dropout(self.embedding(tokens))
        first = tuple(part.transpose(0, 1).contiguous() for part in state)
        hidden, last = self.lstm(words, first)
        return self.narrow(self.dropout(hidden)), tuple(part.transpose(0, 1) for part in last)
