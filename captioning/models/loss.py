"""Cross entropy of the output layer, computed a chunk of words at a time.

The logits of a batch are its largest tensor by far. Here only a chunk of them exists at a time, and
is turned into its own gradient while it is in the cache (Hsu et al. 2024, "Liger Kernel",
arXiv 2410.10989, 3.2, in plain torch). A GPU takes all words at once if they are few enough.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from captioning.models.layers import autocast_dtype

# 8 MB, which a processor's cache holds. A GPU has no use for small chunks, up to 128 MB.
CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**25}


def word_loss(
    hidden: Float[Tensor, "word hidden"],
    output: nn.Linear,
    targets: Int[Tensor, " word"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the mean of `cross_entropy(output(hidden), targets)`, in nats; differentiable.

    Under autocast the matrix products are in its precision, the loss in float32.
    """
    if hidden.is_cuda and len(hidden) * len(output.weight) <= CHUNK_LOGITS["cuda"]:
        # With one chunk nothing is saved there, and to start its many operations takes long.
        return F.cross_entropy(output(hidden).float(), targets, label_smoothing=label_smoothing)
    needs_grad = torch.is_grad_enabled()  # inside of `forward` it never is
    return _WordLoss.apply(hidden, output.weight, output.bias, targets, label_smoothing, needs_grad)


class _WordLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        needs_grad: bool,
    ) -> Tensor:
        compute_dtype = autocast_dtype(hidden)
        matrix, vocabulary = weight.to(compute_dtype), len(weight)
        inputs = (hidden, weight, bias) if needs_grad else ()
        grads = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in inputs]
        loss = torch.zeros((), device=hidden.device)
        rows = max(1, CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS["cpu"]) // vocabulary)
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            hidden_chunk, target_chunk = hidden[chunk].to(compute_dtype), targets[chunk, None]
            logits = torch.addmm(bias.to(compute_dtype), hidden_chunk, matrix.t()).float()
            # A word's loss: log sum exp - (1 - s) its logit - s times the mean logit.
            target_logits, mean_logits = logits.gather(1, target_chunk), logits.mean(1)
            loss -= (1 - smoothing) * target_logits.sum() + smoothing * mean_logits.sum()
            largest = logits.amax(1, keepdim=True)
            probs = logits.sub_(largest).exp_()
            total = probs.sum(1, keepdim=True)
            loss += (total.log() + largest).sum()
            if not needs_grad:
                continue
            # Its gradient: softmax - s / vocabulary, and less 1 - s where the word is.
            grad_logits = probs.div_(total).sub_(smoothing / vocabulary)
            grad_logits.scatter_add_(1, target_chunk, torch.full_like(total, smoothing - 1))
            grads[2] += grad_logits.sum(0)
            grad_logits = grad_logits.to(compute_dtype)
            grads[0][chunk] = grad_logits @ matrix
            grads[1] += grad_logits.t() @ hidden_chunk
        ctx.save_for_backward(*grads)
        ctx.dtypes = [tensor.dtype for tensor in inputs]
        return loss / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad / len(ctx.saved_tensors[0])
        saved = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *((tensor * scale).to(dtype) for tensor, dtype in saved), None, None, None
