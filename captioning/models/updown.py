"""`model=updown`: bottom-up and top-down attention (Anderson et al. 2018, arXiv 1707.07998, 3.2).

The attention LSTM reads [word; mean region; language hidden] and queries the regions; the language
LSTM reads [context; attention hidden] and predicts the word. Each step depends on the one before,
so there is a loop over words; what does not depend on it is computed for all words ahead.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captioning.models.decoder import Decoder, Features, HiddenStates, State, Tokens
from captioning.models.layers import Dropout, RegionProjection


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
        self.region_proj = RegionProjection(feature_dim, hidden_dim, dropout)
        # The attention LSTM's gates, as two products: that of the inputs does not need the loop.
        self.attention_lstm_input = nn.Linear(embed_dim + hidden_dim, 4 * hidden_dim)
        self.attention_lstm_hidden = nn.Linear(2 * hidden_dim, 4 * hidden_dim, bias=False)
        self.language_lstm = nn.Linear(3 * hidden_dim, 4 * hidden_dim)
        size = hidden_dim // 2  # the paper compares query and region in half of 1,000 dimensions
        self.query_proj = nn.Linear(hidden_dim, size)
        self.key_proj = nn.Linear(hidden_dim, size, bias=False)
        self.score_proj = nn.Linear(size, 1, bias=False)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_dim, vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        for gates in (self.attention_lstm_input, self.attention_lstm_hidden, self.language_lstm):
            nn.init.uniform_(gates.weight, -(hidden_dim**-0.5), hidden_dim**-0.5)  # as nn.LSTM

    def begin(self, features: Features) -> State:
        """Return regions `[batch region hidden]`, their keys, and the states of both LSTMs."""
        regions = self.region_proj(features)
        zero = torch.zeros_like(regions[:, 0])
        return regions, self.key_proj(regions), zero, zero, zero, zero

    def decode(self, tokens: Tokens, state: State) -> tuple[HiddenStates, State]:
        """Return the language LSTM's output after each token, and the new state."""
        lang_hidden, _, state = self._unroll(tokens, state)
        return self.dropout(lang_hidden), state

    def attention(
        self, features: Float[Tensor, "batch region feature"], tokens: Tokens
    ) -> Float[Tensor, "batch time region"]:
        """Return the attention weights from which the word after each token is predicted."""
        return self._unroll(tokens, self.begin(features))[1]

    def _unroll(self, tokens: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return the language LSTM's outputs, the attention weights and the new state."""
        regions, keys, attn_hidden, attn_cell, lang_hidden, lang_cell = state
        embedded = self.dropout(self.embedding(tokens))
        embedded = embedded.view(regions.shape[0], -1, *embedded.shape[1:])  # [image hypothesis …]
        mean = regions.mean(1)[:, None, None].expand(-1, *embedded.shape[1:3], -1)
        input_gates = self.attention_lstm_input(torch.cat([embedded, mean], -1)).flatten(0, 1)
        outputs, all_weights = [], []
        for gates in input_gates.unbind(1):
            recurrent = torch.cat([attn_hidden, lang_hidden], -1)
            gates = gates + self.attention_lstm_hidden(recurrent)
            attn_hidden, attn_cell = lstm_cell(gates, attn_cell)
            query = self.query_proj(attn_hidden).view(keys.shape[0], -1, 1, keys.shape[-1])
            scores = self.score_proj((keys[:, None] + query).tanh_())[..., 0]
            weights = scores.softmax(-1)  # [image hypothesis region]
            context = (weights @ regions).flatten(0, 1)
            gates = self.language_lstm(torch.cat([context, attn_hidden, lang_hidden], -1))
            lang_hidden, lang_cell = lstm_cell(gates, lang_cell)
            outputs.append(lang_hidden)
            all_weights.append(weights.flatten(0, 1))
        state = regions, keys, attn_hidden, attn_cell, lang_hidden, lang_cell
        return torch.stack(outputs, 1), torch.stack(all_weights, 1), state


def lstm_cell(gates: Float[Tensor, "batch gates"], cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden and cell state of an LSTM from its four gates and the previous cell."""
    input_gate, forget_gate, output_gate, candidate = gates.chunk(4, -1)
    cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * candidate.tanh()
    return output_gate.sigmoid() * cell.tanh(), cell
