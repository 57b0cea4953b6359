"""`model=transformer`: a small transformer decoder over words and image regions, without an LSTM.

Vaswani et al. 2017, arXiv 1706.03762, with the norms first (Xiong et al. 2020, arXiv 2002.04745).
Regions are projected once and are the keys and values of every layer. The rest of the state is each
layer's key-value cache, which grows by one position a word.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from captioning import UserError
from captioning.models.decoder import Decoder, Features, HiddenStates, State, Tokens
from captioning.models.layers import Dropout, RegionProjection, attention_weights, split_heads


class TransformerDecoder(Decoder):
    """Embedding + position → blocks of self-attention, cross-attention, feed-forward → logits.

    Pooled features are a single region. Raises UserError if `heads` do not divide `hidden_dim`.
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
        self.region_proj = RegionProjection(feature_dim, hidden_dim, dropout)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerBlock(hidden_dim, heads, dropout) for _ in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(hidden_dim)
        self.output = nn.Linear(hidden_dim, vocabulary_size)

    def begin(self, features: Features) -> State:
        """Return regions `[batch region hidden]` and an empty cache for each layer."""
        regions = self.region_proj(features if features.dim() == 3 else features[:, None])
        empty = regions.new_zeros(regions.shape[0], 0, 2 * regions.shape[-1])
        return regions, *(empty for _ in self.layers)

    def decode(self, tokens: Tokens, state: State) -> tuple[HiddenStates, State]:
        """Return the last layer's output after each token, and the new state."""
        regions, *caches = state
        past, time = caches[0].shape[1], tokens.shape[1]
        positions = torch.arange(past + time, device=tokens.device)
        causal_mask = positions <= positions[past:, None]
        embedded = self.embedding(tokens)
        encodings = sinusoidal_positions(positions[past:], embedded.shape[-1])
        hidden = self.dropout(embedded + encodings)
        for number, layer in enumerate(self.layers):
            hidden, caches[number] = layer(hidden, caches[number], regions, causal_mask)
        return self.final_norm(hidden), (regions, *caches)


class TransformerBlock(nn.Module):
    """Pre-norm residual block: masked self-attention, cross-attention to regions, feed-forward."""

    def __init__(self, hidden_dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim) for _ in range(3))
        self.qkv = nn.Linear(hidden_dim, 3 * hidden_dim)
        self.self_attn_out = nn.Linear(hidden_dim, hidden_dim)
        self.cross_query = nn.Linear(hidden_dim, hidden_dim)
        self.cross_attn_out = nn.Linear(hidden_dim, hidden_dim)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_dim, 4 * hidden_dim), nn.ReLU(), nn.Linear(4 * hidden_dim, hidden_dim)
        )
        self.dropout = Dropout(dropout)

    def forward(
        self,
        hidden: Float[Tensor, "batch time hidden"],
        cache: Float[Tensor, "batch past keyvalue"],
        regions: Float[Tensor, "image region hidden"],
        causal_mask: Bool[Tensor, "time all"],
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch all keyvalue"]]:
        """Return the block's output, and the keys and values of all words so far."""
        query, key, value = self.qkv(self.norms[0](hidden)).chunk(3, -1)
        cache = torch.cat([cache, torch.cat([key, value], -1)], 1)
        key, value = cache.chunk(2, -1)
        context = self._attend(query, key, value, causal_mask)
        hidden = hidden + self.dropout(self.self_attn_out(context))

        query = self.cross_query(self.norms[1](hidden))
        queries = query.reshape(regions.shape[0], -1, query.shape[-1])  # all hypotheses of an image
        context = self._attend(queries, regions, regions).reshape(query.shape)
        hidden = hidden + self.dropout(self.cross_attn_out(context))
        return hidden + self.dropout(self.mlp(self.norms[2](hidden))), cache

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        query, key, value = (split_heads(part, self.heads) for part in (query, key, value))
        return (attention_weights(query, key, mask) @ value).transpose(1, 2).flatten(2)


def sinusoidal_positions(positions: Int[Tensor, " time"], size: int) -> Float[Tensor, "time size"]:
    """Return position encodings: sines, then cosines, of waves 2 pi to 20,000 pi long."""
    steps = torch.arange(size // 2, device=positions.device) * (-math.log(10_000) / (size // 2))
    angles = positions[:, None] * steps.exp()
    return torch.cat([angles.sin(), angles.cos()], -1)
