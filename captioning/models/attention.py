"""`model=attention`: an LSTM decoder with spatial attention over the encoder's grid.

The LSTM's output queries the image regions (Lu et al. 2017, arXiv 1612.01887, eq. 5-8). The gated
context vector (Xu et al. 2015, arXiv 1502.03044, 4.2.1) and the LSTM's output together predict the
next word. The context is not fed back into the LSTM, so a whole caption is decoded in parallel.
"""

from jaxtyping import Float
from torch import Tensor, nn

from captioning import UserError
from captioning.models.decoder import Decoder, Features, HiddenStates, State, Tokens
from captioning.models.layers import (
    LSTM,
    Dropout,
    RegionProjection,
    attention_weights,
    split_heads,
)


class AttentionDecoder(Decoder):
    """Embedding → LSTM, from a state of the mean region → gated attention over regions → logits."""

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
        self.region_proj = RegionProjection(feature_dim, hidden_dim, dropout)
        self.init_state_proj = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.lstm = LSTM(embed_dim, hidden_dim, batch_first=True)
        self.query_proj = nn.Linear(hidden_dim, hidden_dim)
        self.context_gate = nn.Linear(hidden_dim, hidden_dim)
        self.hidden_proj = nn.Linear(hidden_dim, hidden_dim)
        self.context_proj = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_dim, vocabulary_size)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)

    def begin(self, features: Features) -> State:
        """Return regions `[batch region hidden]`, hidden and cell, each `[batch hidden]`."""
        regions = self.region_proj(features)
        hidden, cell = self.init_state_proj(regions.mean(1)).chunk(2, dim=-1)
        return regions, hidden.tanh(), cell

    def decode(self, tokens: Tokens, state: State) -> tuple[HiddenStates, State]:
        """Return LSTM output and context fused, after each token, and the new state."""
        regions, hidden, cell = state
        embedded = self.dropout(self.embedding(tokens))
        lstm_out, (hidden, cell) = self.lstm(embedded, (hidden[None], cell[None]))
        lstm_out = self.dropout(lstm_out)
        region_heads = split_heads(regions, self.heads)
        context = self._attention_weights(lstm_out, region_heads) @ region_heads
        context = context.transpose(1, 2).reshape(lstm_out.shape)
        gate = self.context_gate(lstm_out).sigmoid()
        fused = self.hidden_proj(lstm_out) + gate * self.context_proj(context)
        return self.dropout(fused.tanh()), (regions, hidden[0], cell[0])

    def attention(
        self, features: Float[Tensor, "batch region feature"], tokens: Tokens
    ) -> Float[Tensor, "batch time region"]:
        """Return the weights, the mean of the heads, from which the word after each token comes."""
        regions, hidden, cell = self.begin(features)
        lstm_out, _ = self.lstm(self.embedding(tokens), (hidden[None], cell[None]))
        return self._attention_weights(lstm_out, split_heads(regions, self.heads)).mean(1)

    def _attention_weights(
        self, lstm_out: Tensor, region_heads: Float[Tensor, "image head region size"]
    ) -> Float[Tensor, "image head query region"]:
        """Return the weight of each region; all hypotheses of an image are queries of one row."""
        queries = self.query_proj(lstm_out)
        queries = queries.reshape(region_heads.shape[0], -1, queries.shape[-1])
        return attention_weights(split_heads(queries, self.heads), region_heads)
