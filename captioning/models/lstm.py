"""`model=lstm`: the Show-and-Tell decoder (Vinyals et al. 2015, arXiv 1411.4555).

The image enters the LSTM in one of the three ways of Tanti et al. 2018, arXiv 1703.09137, of which
the initial state (init-inject) was their best.
"""

import torch
from torch import nn

from captioning import UserError
from captioning.models.decoder import Decoder, Features, HiddenStates, State, Tokens
from captioning.models.layers import LSTM, BatchNorm, Dropout


class LSTMDecoder(Decoder):
    """Embedding → LSTM → logits.

    The image is the LSTM's initial state (`inject="init"`), its first word ("pre", as in Show and
    Tell), or an input beside every word ("par"). `tied=True` shares the embedding with the output
    layer (Press and Wolf 2017, arXiv 1608.05859). Raises UserError for another `inject`.
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
            raise UserError(f"model.inject={inject}: the image enters by init, pre or par")
        self.inject = inject
        self.embedding = nn.Embedding(vocabulary_size, embed_dim)
        self.image_proj = nn.Sequential(
            BatchNorm(feature_dim, affine=False),  # the next layer has weights enough
            Dropout(dropout),
            nn.Linear(feature_dim, 2 * num_layers * hidden_dim if inject == "init" else embed_dim),
            # As an input, smaller than a state, an image is soon forgotten without.
            nn.Identity() if inject == "init" else BatchNorm(embed_dim),
        )
        self.lstm = LSTM(
            2 * embed_dim if inject == "par" else embed_dim,
            hidden_dim,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.dropout = Dropout(dropout)
        self.output_proj = nn.Linear(hidden_dim, embed_dim) if tied else nn.Identity()
        self.output = nn.Linear(embed_dim if tied else hidden_dim, vocabulary_size)
        if tied:
            self.output.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)

    def begin(self, features: Features) -> State:
        """Return hidden and cell, each `[batch layer hidden]`, and for "par" image `[batch embed]`.

        Regions are read as their mean.
        """
        image = self.image_proj(features if features.dim() == 2 else features.mean(dim=1))
        layers, size = self.lstm.num_layers, self.lstm.hidden_size
        if self.inject == "init":
            hidden, cell = image.unflatten(1, (2, layers, size)).unbind(1)
            return hidden.tanh(), cell
        zero = image.new_zeros(image.shape[0], layers, size)  # exported, len() is a constant
        if self.inject == "par":
            return zero, zero, image
        _, state = self.lstm(image[:, None], (zero.transpose(0, 1), zero.transpose(0, 1)))
        return tuple(part.transpose(0, 1) for part in state)

    def decode(self, tokens: Tokens, state: State) -> tuple[HiddenStates, State]:
        """Return the LSTM's output after each token, and the new state."""
        hidden, cell, *image = state
        inputs = self.dropout(self.embedding(tokens))
        if image:
            inputs = torch.cat([inputs, image[0][:, None].expand(-1, inputs.shape[1], -1)], -1)
        lstm_out, final = self.lstm(inputs, (hidden.transpose(0, 1), cell.transpose(0, 1)))
        state = *(part.transpose(0, 1) for part in final), *image
        return self.output_proj(self.dropout(lstm_out)), state
