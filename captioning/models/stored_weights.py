"""Weights as files hold them: matrices in int8, and a network that is made to be filled by them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captioning.data.atomic import atomic_write


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


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, complete or not at all."""
    # Tensors that share memory are stored twice: safetensors has no notion of sharing.
    content = save({key: value.clone().contiguous() for key, value in tensors.items()}, metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)  # not by save_file, whose files nobody else may read


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors and metadata. Raises an error of safetensors for another file."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def check_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the tensors have these shapes, KeyError for one that is missing."""
    if any(tensors[key].shape != shape for key, shape in shapes.items()):
        raise ValueError("its tensors are not of one size")


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
