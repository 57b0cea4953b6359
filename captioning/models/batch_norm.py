"""Batch norm that also trains on a batch of a single row, such as the captions of one image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` (Ioffe and Szegedy 2015), which raises where a training batch has one row.

    A row has no variance of its own: it is normalized by the running statistics, as in eval mode,
    and they learn from it by its squared distance to the running mean.
    """

    def forward(self, rows: Float[Tensor, "row feature"]) -> Float[Tensor, "row feature"]:
        """Return the rows, each feature less its mean and over its standard deviation."""
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
