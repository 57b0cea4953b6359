"""What a GPU is asked for in particular: results without a wait, and products in full float32."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_PRECISION_LOCK = threading.RLock()  # the settings are of the process, not of a thread


def copy_to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a GPU's tensor; the function that is returned waits until it has arrived."""
    if not tensor.is_cuda:
        return lambda: tensor
    copy, arrived = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(tensor.device))  # by default, of the current device

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait


@contextmanager
def full_float32(enabled: bool = True) -> Iterator[None]:
    """Multiply without TF32, whose rounding shows in features and turns near ties of a beam."""
    if not enabled:
        yield
        return
    with _PRECISION_LOCK:
        precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = tf32
