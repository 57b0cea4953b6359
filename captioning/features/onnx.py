"""Run a frozen network by ONNX Runtime, which takes less time than torch on CPUs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # of the largest number; features are stored in float16, which keeps 5e-4

log = logging.getLogger(__name__)


def to_onnx_runtime(body: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return a function that computes `body` for any number of images like these, `[b 3 h w]`.

    The export takes seconds. Returns None, and logs why, if it fails or gives other numbers.
    """
    import onnxruntime

    name = type(body).__name__
    file = io.BytesIO()
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        with silence_exporter():
            exporter = {"dynamo": True, "verbose": False}  # torch 2.8 does not choose it by itself
            torch.onnx.export(body, (images,), dynamic_shapes=shapes, **exporter).save(file)
    except Exception as error:  # the exporter's errors have no common class
        log.info("%s stays with torch, ONNX cannot hold it: %s", name, str(error).split("\n")[0])
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    source = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {source: images.numpy()})[0])

    with torch.inference_mode():
        expected = body(images)
    difference = (run(images) - expected).abs().max() / expected.abs().max()
    if difference > TOLERANCE:
        log.warning("%s stays with torch, ONNX Runtime differs by %.0e", name, difference)
        return None
    return run


@contextlib.contextmanager
def silence_exporter() -> Iterator[None]:
    """Suppress the exporter's output, warnings and log."""
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
