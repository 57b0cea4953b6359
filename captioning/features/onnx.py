"""A network by ONNX Runtime: on CPUs the same numbers as torch's, in less time.

A torch module enters; a function of the same images leaves. Worth its seconds of export from
about a thousand images on. Next: encoder.py, which uses it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # of the largest number; half precision, as features are stored, keeps 5e-4

log = logging.getLogger(__name__)


def onnx_runtime(body: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return `body` by ONNX Runtime, for batches of any number of such images `[b 3 h w]`.

    None, and a word in the log, where it cannot be exported or gives other numbers.
    """
    import onnxruntime

    name = type(body).__name__
    file = io.BytesIO()
    try:
        with quiet():
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                body, (images,), input_names=["images"], dynamic_shapes=shapes, verbose=False
            ).save(file)
    except Exception as error:  # the exporter's ways to fail have no common class
        log.info("%s stays with torch, ONNX cannot hold it: %s", name, str(error).split("\n")[0])
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    with torch.inference_mode():
        expected = body(images)
    difference = (run(images) - expected).abs().max() / expected.abs().max()
    if difference > TOLERANCE:
        log.warning("%s stays with torch, ONNX Runtime differs by %.0e", name, difference)
        return None
    return run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's reports of progress and its own deprecations from the user."""
    level = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
