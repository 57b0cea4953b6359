"""What the last epochs learned is validated and kept, whatever trainer.check_val_every_n_epoch is.

An epoch that begins enters; a validation at its end leaves, where it is the last one.
"""

from __future__ import annotations

import pytorch_lightning as pl


class LastEpoch(pl.Callback):
    """Validates after the last epoch, which of 12 with every 5th validated Lightning leaves out.

    Checkpoints are written after validations: without one, epochs would be trained for nothing.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let Lightning ask after the last epoch, too."""
        if trainer.check_val_every_n_epoch and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1
