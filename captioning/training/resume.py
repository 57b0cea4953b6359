"""What Lightning does not restore, so that a resumed run is the same run to the last bit.

Its checkpoints hold weights, optimizer, schedule and progress, but no generator's state, nor the
mean loss of an epoch half done; metrics of an epoch are written after its checkpoint; and they hold
the loader's place in the epoch, but a schedule that asks for `estimated_stepping_batches` makes
Lightning 2.6 forget to load it.
"""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

log = logging.getLogger(__name__)


class ExactResume(pl.Callback):
    """Keeps the states of Python's, NumPy's and torch's generators in every checkpoint.

    Of several processes each has its own. Where a checkpoint was made by another number of
    processes, they begin anew.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []
        self._places: list[dict[str, int]] = []
        self._sums: dict[str, list[torch.Tensor]] = {}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states of all processes, and what will be known of the epoch only later."""
        for logger in trainer.loggers:
            logger.save()
        loop = trainer.fit_loop.epoch_loop
        if trainer.fit_loop.epoch_progress.current.processed > trainer.current_epoch:
            known = trainer.callback_metrics.items()
            row = {key: value.item() for key, value in known if key.startswith("train/")}
            row |= {"epoch": trainer.current_epoch, "step": trainer.global_step - 1}
            checkpoint["epoch_metrics"] = row
        elif trainer.world_size == 1:
            checkpoint["running_sums"] = {
                key: [metric.value, metric.cumulated_batch_size]
                for key, metric in loop._results.items()
                if metric.is_tensor and metric.meta.is_mean_reduction
            }
        states = [read_states(pl_module.device)]
        if trainer.world_size > 1:
            mine, states = states[0], [None] * trainer.world_size
            torch.distributed.all_gather_object(states, mine)
        checkpoint["random_states"] = states

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the states until training starts: what is made before it draws numbers too."""
        self._states = checkpoint.get("random_states", [])
        self._sums = checkpoint.get("running_sums", {})
        self._places = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on from the checkpoint's place and states."""
        if self._places:
            trainer.train_dataloader.load_state_dict(self._places[0])
        if len(self._states) == trainer.world_size:
            write_states(self._states[trainer.global_rank], pl_module.device)
        elif trainer.ckpt_path:
            log.warning(
                "%s holds the random states of %d processes and this run has %d: "
                "it goes on, but not to the last bit as if it had never stopped",
                trainer.ckpt_path,
                len(self._states),
                trainer.world_size,
            )
        self._states, self._places = [], []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Add to an epoch's means, with its first batch here, what came before."""
        results = trainer.fit_loop.epoch_loop._results
        for key in self._sums.keys() & results.keys():  # not all of it is logged to the end
            (value, weight), metric = self._sums[key], results[key]
            metric.value = metric.value + value.to(metric.value.device)
            metric.cumulated_batch_size = metric.cumulated_batch_size + weight.to(
                metric.value.device
            )
        self._sums = {}


def read_states(device: torch.device) -> dict[str, Any]:
    """Return the generators' states as plain types, which load with `weights_only`."""
    numpy = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": numpy | {"state": numpy["state"] | {"key": numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def write_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the generators to what `read_states` returned."""
    random.setstate(states["python"])
    key = np.array(states["numpy"]["state"]["key"], dtype=np.uint32)
    np.random.set_state(states["numpy"] | {"state": states["numpy"]["state"] | {"key": key}})
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
