"""Dropout whose random numbers cost little on a CPU, where those of `nn.Dropout` cost most of it.

Eight decisions are made from one draw of 64 bits instead of one from each. Next: the decoders.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """In training, zeroes a share `p` of the numbers and scales the rest (Srivastava et al. 2014).

    On a CPU a byte decides on each number: `p` is rounded to a 256th, unless that is none or all.
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p} must be at least 0 and below 1")
        self.p = p

    def forward(self, numbers: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the numbers with some of them zero; in eval mode, the numbers."""
        if not self.training or self.p == 0:
            return numbers
        kept = round(256 * (1 - self.p))
        if numbers.device.type != "cpu" or kept in (0, 256):
            return F.dropout(numbers, self.p)
        draws = torch.empty(-(-numbers.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        bytes_ = draws.view(torch.uint8)[: numbers.numel()].view(numbers.shape)
        return numbers * (bytes_ < kept).to(numbers.dtype).mul_(256 / kept)
