"""What stands in for Lightning's bar in a log file: a line a minute."""

import logging
import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar

from captioning.data.progress import SECONDS

log = logging.getLogger(__name__)


class LogProgress(ProgressBar):
    """Logs which batch a long epoch has come to; the end of an epoch is RunFolder's."""

    def __init__(self) -> None:
        super().__init__()
        self._due = time.monotonic() + SECONDS

    def disable(self) -> None:
        """Log nothing: Lightning calls it in all processes but one."""
        self._due = math.inf

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a line where the last is a minute old."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + SECONDS
            counts = trainer.current_epoch, batch_idx + 1, self.total_train_batches
            log.info("epoch %d: %d of %s batches", *counts)
