"""Out of memory: the batch that was too much is halved until it fits, and that size is told.

An exception enters; a sentence leaves, which train.py raises.
"""

from __future__ import annotations

import gc
import traceback
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from captioning.data.vocabulary import PAD
from captioning.features.batches import Batch
from captioning.training.validation import ValidationCaptions

# What torch says on a CPU; a GPU's error has a class, but for what cuBLAS says.
TOLD = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


class OutOfMemory(pl.Callback):
    """After a fit that broke off, `advice` says what to type where memory was too small."""

    def __init__(self) -> None:
        self.advice = ""
        self._batch: Batch | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, *_: Any
    ) -> None:
        """Keep the batch that may be too much."""
        self._batch = batch

    def on_train_batch_end(self, *_: Any) -> None:
        """Let it go."""
        self._batch = None

    on_validation_batch_start = on_train_batch_start
    on_validation_batch_end = on_train_batch_end

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Find out what fits, while the model is still where it was."""
        if not is_out_of_memory(exception):
            return
        traceback.clear_frames(exception.__traceback__)  # they hold what was computed
        pl_module.zero_grad()
        where = f"{pl_module.device} is out of memory ({str(exception).strip().splitlines()[0]})"
        if self._batch is None:
            size = next(
                (
                    one.batch_size
                    for one in trainer.callbacks
                    if isinstance(one, ValidationCaptions)
                ),
                2,
            )
            self.advice = (
                f"{where}, captioning; type callbacks.captions.batch_size={max(1, size // 2)}"
            )
            return
        with trainer.precision_plugin.forward_context():
            size = largest_fitting_batch(pl_module, self._batch)
        if size is None:
            self.advice = f"{where}, and so it is with a single caption: take a smaller model"
            return
        size = max(1, trainer.datamodule.batch_size * size // len(self._batch.tokens))
        self.advice = f"{where}; datamodule.batch_size={size} fits, tried with the same captions"
        if trainer.datamodule.resident:
            self.advice += ", and datamodule.resident=false leaves room for more"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is of memory: a GPU's, torch's on a CPU, Python's and NumPy's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(one in str(error) for one in TOLD)
    )


def largest_fitting_batch(module: pl.LightningModule, batch: Batch) -> int | None:
    """Return how many captions of a batch can be learnt from at once: half, a quarter, …"""
    size = len(batch.tokens)
    while (size := size // 2) > 1:
        gc.collect()
        torch.cuda.empty_cache()  # does nothing where no GPU was used
        try:
            with torch.enable_grad():
                module._loss(first(batch, size)).backward()
            return size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        finally:
            module.zero_grad()
    return None


def first(batch: Batch, size: int) -> Batch:
    """Return the first captions of a batch, with their pictures."""
    tokens = batch.tokens[:size]
    kept, pictures = torch.unique(batch.image_index[:size], return_inverse=True)
    words = np.flatnonzero(tokens[:, 1:].cpu().numpy() != PAD)
    return Batch(
        batch.features[kept],
        batch.store_rows[kept],
        pictures,
        tokens,
        torch.from_numpy(words).to(tokens.device),
    )
