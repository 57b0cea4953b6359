"""Weights as files hold them: matrices in int8, and a network that is made to be filled by them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def quantize(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices in int8, with a scale for each of their rows, `scale.<name>`."""
    quantized = {}
    for key, value in weights.items():
        if value.dim() > 1:
            scale = value.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
            quantized[f"scale.{key}"] = scale
            value = (value / scale).round().to(torch.int8)
        quantized[key] = value
    return quantized


def dequantize(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in float32: those in int8 times their rows' scales, `scale.<name>`.

    Raises KeyError or ValueError for scales that are missing, or not one a row.
    """
    floats = {}
    for key, value in weights.items():
        if value.dtype == torch.int8:
            scale = weights[f"scale.{key}"]
            if scale.shape != (*value.shape[:-1], 1):  # a product could take all memory
                raise ValueError(f"scale.{key} is not of the size of {key}")
            value = value.float() * scale
        if not key.startswith("scale."):
            floats[key] = value
    return floats


class SkipInit(TorchFunctionMode):
    """Draw no numbers for new parameters: on the meta device that imports seconds of torch."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return the tensor of a function of `torch.nn.init` as it is; call any other."""
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init" and "tensor" in kwargs:
            return kwargs["tensor"]
        return function(*args, **kwargs)
