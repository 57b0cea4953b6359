"""Layers that several decoders share."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from captioning import UserError


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` (Ioffe and Szegedy 2015) that also trains on a batch of a single row.

    A row has no variance of its own: it is normalized by the running statistics, as in eval mode,
    and updates them by its squared distance to the running mean.
    """

    def forward(self, rows: Float[Tensor, "row feature"]) -> Float[Tensor, "row feature"]:
        """Normalize each feature."""
        if not self.training or len(rows) > 1:
            return super().forward(rows)
        # Copies: what backward reads must not change when the next batch updates the statistics.
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        with torch.no_grad():
            row = rows[0].to(mean.dtype)
            self.running_mean.lerp_(row, self.momentum)
            self.running_var.lerp_((row - mean).square(), self.momentum)
            self.num_batches_tracked.add_(1)
        return F.batch_norm(rows, mean, variance, self.weight, self.bias, eps=self.eps)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with cheap random numbers on a CPU.

    There one draw of 64 bits decides on eight elements, as drawing is most of the time that
    `nn.Dropout` takes; `p` is rounded to a 256th, unless that is none or all.
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p} must be at least 0 and below 1")
        self.p = p

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Zero a share `p` of the elements and scale the rest; in eval mode, return the input."""
        if not self.training or self.p == 0:
            return input
        threshold = round(256 * (1 - self.p))
        if input.device.type != "cpu" or threshold in (0, 256):
            return F.dropout(input, self.p)
        draws = torch.empty(-(-input.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        bytes_ = draws.view(torch.uint8)[: input.numel()].view(input.shape)
        return input * (bytes_ < threshold).to(input.dtype).mul_(256 / threshold)


class RegionProjection(nn.Module):
    """Normalizes the features of image regions and projects them to the decoder's hidden size."""

    def __init__(self, feature_dim: int, hidden_dim: int, dropout: float):
        super().__init__()
        self.norm = BatchNorm(feature_dim, affine=False)  # the linear layer has weights enough
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(feature_dim, hidden_dim)

    def forward(
        self, features: Float[Tensor, "batch *region feature"]
    ) -> Float[Tensor, "batch region hidden"]:
        """Project a grid of features. Raises UserError for pooled ones, which have no regions."""
        if features.dim() == 2:
            raise UserError("this model attends to regions of an image; type encoder.features=grid")
        normalized = self.norm(features.flatten(0, 1)).view_as(features)
        return self.dropout(self.linear(self.dropout(normalized)).relu())


def split_heads(
    sequence: Float[Tensor, "batch length hidden"], heads: int
) -> Float[Tensor, "batch head length size"]:
    """Split the hidden size into heads."""
    return sequence.unflatten(-1, (heads, -1)).transpose(1, 2)


def attention_weights(
    query: Float[Tensor, "batch head query size"],
    key: Float[Tensor, "batch head key size"],
    mask: Bool[Tensor, "query key"] | None = None,
) -> Float[Tensor, "batch head query key"]:
    """Return the weights of scaled dot-product attention (Vaswani et al. 2017, eq. 1).

    Written out, as for so few words torch's fused attention is slower in bfloat16 on a CPU.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)
