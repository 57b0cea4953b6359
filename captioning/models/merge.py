"""`model=merge`: the picture meets the text after the LSTM (Tanti et al. 2018, arXiv 1703.09137).

The architecture of the Keras notebook that this project grew out of: image and text, 256 units
each, are added, then one dense layer and the softmax.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning.models.decoder import Decoder, State
from captioning.models.dropout import Dropout


class MergeDecoder(Decoder):
    """Dense(image) + LSTM(words) → dense → logits; the LSTM never sees the picture."""

    def __init__(
        self, vocabulary_size: int, feature_dim: int, hidden_dim: int = 256, dropout: float = 0.5
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, hidden_dim)
        self.image = nn.Sequential(Dropout(dropout), nn.Linear(feature_dim, hidden_dim), nn.ReLU())
        self.lstm = nn.LSTM(hidden_dim, hidden_dim, batch_first=True)
        self.dropout = Dropout(dropout)
        self.merged = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU())
        self.output = nn.Linear(hidden_dim, vocabulary_size)

    def begin(self, features: Float[Tensor, "batch *region feature"]) -> State:
        """Return image, hidden and cell, each `[batch hidden]`; the LSTM starts from zero."""
        pooled = features if features.dim() == 2 else features.mean(dim=1)
        image = self.image(pooled)
        return image, torch.zeros_like(image), torch.zeros_like(image)

    def decode(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read words; return what image and text make together, and the new state."""
        image, hidden, cell = state
        words = self.dropout(self.embedding(tokens))
        text, (hidden, cell) = self.lstm(words, (hidden[None], cell[None]))
        return self.merged(image[:, None] + text), (image, hidden[0], cell[0])
