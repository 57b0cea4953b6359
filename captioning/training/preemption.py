"""SIGTERM, as a queue sends it before it takes the machine: the run saves itself and ends.

A signal enters; last.ckpt leaves, and exit code 143. Lightning's own handling would break off a
validation, which it cannot go on with, and saves nothing.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # SLURM's --signal can be either
CODE = 128 + signal.SIGTERM


class Preemption(pl.Callback):
    """Ends the run at the next batch after SIGTERM or SIGUSR1, with last.ckpt in `folder`.

    During a validation it waits for the end of the epoch, which has saved last.ckpt. Of several
    processes all end where one was told. `told` says whether there was a signal.
    """

    def __init__(self, folder: str):
        self.last = Path(folder) / "last.ckpt"
        self.told = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals; Lightning restores after the fit what was before it."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take them again: Lightning has put its own handler in front, which waits for others."""
        self.on_fit_start(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save and end within an epoch; its last batch is followed by validation and a save."""
        if self._is_told(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.save_checkpoint(self.last)
            raise SIGTERMException(CODE)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End between two epochs."""
        if self._is_told(trainer):
            raise SIGTERMException(CODE)

    def _note(self, number: int, frame: Any) -> None:
        self.told = True

    def _is_told(self, trainer: pl.Trainer) -> bool:
        # All agree, also where one is told while it asks the others: it asks again soon.
        told = trainer.strategy.reduce_boolean_decision(self.told, all=False)
        self.told = self.told or told
        return told
