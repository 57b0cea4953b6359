"""A loss that is no number stops the run, and leaves the batch that made it.

Losses enter; `NotFiniteError` and not-finite.pt leave, before the weights are spoiled on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from captioning import UserError
from captioning.features.batches import Batch

FILE = "not-finite.pt"


class NotFiniteError(UserError):
    """The loss of a step is infinite or not a number."""


class FiniteLoss(pl.Callback):
    """Raises NotFiniteError for a loss that is not finite, and saves its batch to `folder`.

    A GPU is not waited for: the loss of a step is looked at in the next one, and the last of an
    epoch before validation. The weights in the file are then those after the update.
    """

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self._step: tuple[Any, Batch, Tensor, Any] | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the batch until its loss has been seen."""
        self._look(trainer, pl_module)
        self._batch = batch

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Look at the loss: now on a CPU, later on a GPU."""
        where, loss, arrived = trainer.global_step, loss.detach(), None
        if loss.is_cuda:
            loss = torch.empty((), pin_memory=True).copy_(loss.float(), non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._step = where, self._batch, loss, arrived
        if arrived is None:
            self._look(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last loss of an epoch, before anything is saved."""
        self._look(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._step is None:
            return
        (step, batch, loss, arrived), self._step = self._step, None
        if arrived is not None:
            arrived.synchronize()
        if bool(torch.isfinite(loss)):
            return
        # Each process has a part of the batch; whose loss it is, says so.
        rank = f"-{trainer.global_rank}" if trainer.global_rank else ""
        path = self.folder / FILE.replace(".pt", f"{rank}.pt")
        content = {"loss": float(loss), "epoch": trainer.current_epoch, "step": step}
        content |= {"batch": batch._asdict(), "state_dict": module.state_dict()}
        module.on_save_checkpoint(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        raise NotFiniteError(
            f"the loss is {float(loss)} in epoch {trainer.current_epoch}, step {step}, and nothing "
            "more was saved; try a lower training.learning_rate, trainer.gradient_clip_val=1, or "
            "trainer.precision=32-true and go on from last.ckpt. The batch is in "
            f"{path}; to replay it: python -m captioning.replay {path}"
        )
