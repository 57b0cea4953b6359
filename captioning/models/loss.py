"""The loss of the output layer, some words at a time: hidden vectors enter, nats a word leave.

The logits of a batch are its largest numbers by far, and are read and written many times over.
Here a few rows of them are made, turned into their own gradient while they are in the cache, and
forgotten (Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989, 3.2, in plain torch). Next: module.py.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AT_ONCE = 2**21  # logits: 8 MB, which a processor's cache holds


def word_loss(
    hidden: Float[Tensor, "word hidden"],
    output: nn.Linear,
    targets: Int[Tensor, " word"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the mean of `cross_entropy(output(hidden), targets)`, in nats, and learn from it.

    Under autocast the products are in its precision, the loss in float32.
    """
    learns = torch.is_grad_enabled()  # inside of `forward` it never is
    return _WordLoss.apply(hidden, output.weight, output.bias, targets, label_smoothing, learns)


class _WordLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        learns: bool,
    ) -> Tensor:
        kind = hidden.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        matrix, vocabulary = weight.to(low), len(weight)
        inputs = (hidden, weight, bias) if learns else ()
        gradients = [torch.zeros_like(one, dtype=torch.float32) for one in inputs]
        loss = torch.zeros((), device=hidden.device)
        rows = max(1, AT_ONCE // vocabulary)
        for start in range(0, len(hidden), rows):
            some, wanted = hidden[start : start + rows].to(low), targets[start : start + rows, None]
            logits = torch.addmm(bias.to(low), some, matrix.t()).float()
            # A word's loss: log sum exp - (1 - s) its logit - s times the mean logit.
            loss -= (1 - smoothing) * logits.gather(1, wanted).sum() + smoothing * logits.mean(
                1
            ).sum()
            largest = logits.amax(1, keepdim=True)
            share = logits.sub_(largest).exp_()
            total = share.sum(1, keepdim=True)
            loss += (total.log() + largest).sum()
            if not learns:
                continue
            # Its gradient: softmax - s / vocabulary, and less 1 - s where the word is.
            share.div_(total).sub_(smoothing / vocabulary)
            share.scatter_add_(1, wanted, torch.full_like(total, smoothing - 1))
            gradients[2] += share.sum(0)
            share = share.to(low)
            gradients[0][start : start + rows] = share @ matrix
            gradients[1] += share.t() @ some
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [one.dtype for one in inputs]
        return loss / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradient / len(ctx.saved_tensors[0])
        learnt = [
            (one * scale).to(dtype)
            for one, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *learnt, None, None, None
