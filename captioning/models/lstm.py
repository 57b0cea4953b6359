"""`model=lstm`: the Show-and-Tell decoder (Vinyals et al. 2015, arXiv 1411.4555).

Pooled features enter the LSTM in one of the three ways of Tanti et al. 2018, arXiv 1703.09137,
of which the first state (init-inject) was their best; next-word logits leave.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning import UserError
from captioning.models.batch_norm import BatchNorm
from captioning.models.decoder import Decoder, State
from captioning.models.dropout import Dropout


class LSTMDecoder(Decoder):
    """Embedding → LSTM → logits.

    The picture is the LSTM's first state (`inject="init"`), its first word ("pre", as Show and Tell
    had it), or beside every word ("par"). `tied=True` shares the embedding with the output layer
    (Press and Wolf 2017, arXiv 1608.05859). Raises UserError for another `inject`.
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
        inject: str = "init",
    ):
        super().__init__()
        if inject not in ("init", "pre", "par"):
            raise UserError(f"model.inject={inject}: the picture enters by init, pre or par")
        self.inject = inject
        self.embedding = nn.Embedding(vocabulary_size, embed_dim)
        self.image = nn.Sequential(
            BatchNorm(feature_dim, affine=False),  # the next layer has weights enough
            Dropout(dropout),
            nn.Linear(feature_dim, 2 * num_layers * hidden_dim if inject == "init" else embed_dim),
            # Among words, smaller than a first state, a picture is soon forgotten.
            nn.Identity() if inject == "init" else BatchNorm(embed_dim),
        )
        self.lstm = nn.LSTM(
            2 * embed_dim if inject == "par" else embed_dim,
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
        """Return the state before the first word: hidden and cell, each `[batch layer hidden]`.

        Where the picture is beside every word, it is part of the state, `[batch embed]`.
        """
        image = self.image(features if features.dim() == 2 else features.mean(dim=1))
        layers, size = self.lstm.num_layers, self.lstm.hidden_size
        if self.inject == "init":
            state = image.unflatten(1, (2, layers, size))
            return state[:, 0].tanh(), state[:, 1]
        if self.inject == "pre":
            _, state = self.lstm(image[:, None])
            return tuple(part.transpose(0, 1) for part in state)
        zero = image.new_zeros(image.shape[0], layers, size)  # exported, len() is a constant
        return zero, zero, image

    def decode(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read words; return what the LSTM says and its new state."""
        words, (hidden, cell, *image) = self.dropout(self.embedding(tokens)), state
        if image:
            words = torch.cat([words, image[0][:, None].expand(-1, words.shape[1], -1)], -1)
        first = tuple(part.transpose(0, 1).contiguous() for part in (hidden, cell))
        said, last = self.lstm(words, first)
        state = *(part.transpose(0, 1) for part in last), *image
        return self.narrow(self.dropout(said)), state
