"""`model=merge`: the image is merged with the text after the LSTM (Tanti et al. 2018).

arXiv 1703.09137. The architecture of the Keras notebook that this project grew out of: image and
text, 256 units each, are added, then one dense layer and the softmax.
"""

import torch
from torch import nn

from captioning.models.decoder import Decoder, Features, HiddenStates, State, Tokens
from captioning.models.layers import LSTM, Dropout


class MergeDecoder(Decoder):
    """Dense(image) + LSTM(words) → dense → logits; the image does not enter the LSTM."""

    def __init__(
        self, vocabulary_size: int, feature_dim: int, hidden_dim: int = 256, dropout: float = 0.5
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, hidden_dim)
        self.image_proj = nn.Sequential(
            Dropout(dropout), nn.Linear(feature_dim, hidden_dim), nn.ReLU()
        )
        self.lstm = LSTM(hidden_dim, hidden_dim, batch_first=True)
        self.dropout = Dropout(dropout)
        self.fusion = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU())
        self.output = nn.Linear(hidden_dim, vocabulary_size)

    def begin(self, features: Features) -> State:
        """Return image, hidden and cell, each `[batch hidden]`; the LSTM starts from zero."""
        image = self.image_proj(features if features.dim() == 2 else features.mean(dim=1))
        return image, torch.zeros_like(image), torch.zeros_like(image)

    def decode(self, tokens: Tokens, state: State) -> tuple[HiddenStates, State]:
        """Return the fusion of image and text after each token, and the new state."""
        image, hidden, cell = state
        embedded = self.dropout(self.embedding(tokens))
        lstm_out, (hidden, cell) = self.lstm(embedded, (hidden[None], cell[None]))
        return self.fusion(image[:, None] + lstm_out), (image, hidden[0], cell[0])
