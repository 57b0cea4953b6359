"""Stops a run that is not worth its time: validation scores enter, an Optuna trial decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

if TYPE_CHECKING:
    from optuna import Trial


class Pruning(pl.Callback):
    """Reports `monitor` to a trial after each validation, and raises TrialPruned at its word."""

    def __init__(self, trial: Trial, monitor: str):
        self.trial = trial
        self.monitor = monitor

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the score of this epoch."""
        from optuna import TrialPruned

        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return  # what is validated after the fit is best.ckpt
        score = float(trainer.callback_metrics[self.monitor])
        self.trial.report(score, trainer.current_epoch)
        if self.trial.should_prune():
            raise TrialPruned(f"{self.monitor} {score:.4f} after epoch {trainer.current_epoch}")
