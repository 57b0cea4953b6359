"""Layers that several decoders share."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from captioning import UserError
from captioning.features.gpu import full_float32


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


class LSTM(nn.LSTM):
    """`nn.LSTM` with `batch_first`, biases and one direction, which obeys autocast on a GPU, too.

    There torch runs an LSTM in float16 under any autocast, in TF32 where products are not, takes no
    state that is a view, and draws the dropout between layers from a generator whose state cannot
    be saved.
    """

    def forward(
        self, input: Float[Tensor, "batch time input"], state: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch time hidden"], tuple[Tensor, Tensor]]:
        """Return the outputs, and hidden and cell, each `[layer batch hidden]` as in `state`."""
        drops_out = self.training and self.dropout > 0
        if input.is_cuda and (torch.is_autocast_enabled("cuda") or drops_out):
            return self.forward_by_layer(input, state)
        is_step = input.shape[1] == self.num_layers == 1 and not torch.is_grad_enabled()
        if is_step and not input.is_cuda and autocast_dtype(input) == input.dtype:
            # For one word, most of the time of torch's layer is to rearrange its weights.
            step = torch.lstm_cell(input[:, 0], [part[0] for part in state], *self.all_weights[0])
            return step[0][:, None], (step[0][None], step[1][None])
        is_exact = input.is_cuda and torch.get_float32_matmul_precision() == "highest"
        with full_float32(enabled=is_exact):
            return super().forward(input, (state[0].contiguous(), state[1].contiguous()))

    def forward_by_layer(
        self, input: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return what `forward` does, a layer at a time and in autocast's precision."""
        dtype, finals = autocast_dtype(input), []
        options = (True, 1, 0.0, self.training, False, True)  # biases, a layer, …, batch first
        with torch.autocast(input.device.type, enabled=False):
            for layer, weights in enumerate(self.all_weights):
                # One block of memory, as cuDNN wants it.
                block = torch.cat([weight.flatten() for weight in weights]).to(dtype)
                parts = block.split([weight.numel() for weight in weights])
                parts = [part.view_as(own) for part, own in zip(parts, weights, strict=True)]
                initial = [part[layer : layer + 1].contiguous().to(dtype) for part in state]
                input, *final = torch.lstm(input.to(dtype), initial, parts, *options)
                finals.append(final)
                if layer + 1 < self.num_layers:
                    input = F.dropout(input, self.dropout, self.training)
        hidden, cell = (torch.cat(parts) for parts in zip(*finals, strict=True))
        return input, (hidden, cell)


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """Return the precision of a matrix product with `tensor`: autocast's, or the tensor's own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


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
