"""What Lightning does not restore, so that a resumed run is the same run to the last bit.

Its checkpoints hold weights, optimizer, schedule and progress, but no generator's state, nor the
mean loss of an epoch half done. Metrics of an epoch are written after its checkpoint, and the CSV
logger deletes the metrics.csv that it finds, and rewrites it in place for a new metric.
"""

import csv
import logging
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from captioning.checkpoint import read_history
from captioning.data.atomic import atomic_write

log = logging.getLogger(__name__)


class ExactResume(pl.Callback):
    """Stores the states of Python's, NumPy's and torch's generators in every checkpoint.

    Each process has its own. With another number of processes, they start anew.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []
        self._places: list[dict[str, int]] = []
        self._running_sums: dict[str, list[torch.Tensor]] = {}

    def on_save_checkpoint(self, trainer: pl.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add the states of all processes, and the epoch's metrics, which are logged later."""
        for logger in trainer.loggers:
            logger.save()
        if trainer.fit_loop.epoch_progress.current.processed > trainer.current_epoch:
            metrics = trainer.callback_metrics.items()
            row = {key: value.item() for key, value in metrics if key.startswith("train/")}
            row |= {"epoch": trainer.current_epoch, "step": trainer.global_step - 1}
            checkpoint["epoch_metrics"] = row
        elif trainer.world_size == 1:
            checkpoint["running_sums"] = {
                key: [metric.value, metric.cumulated_batch_size]
                for key, metric in trainer.fit_loop.epoch_loop._results.items()
                if metric.is_tensor and metric.meta.is_mean_reduction
            }
        states = [read_states(trainer.strategy.root_device)]
        if trainer.world_size > 1:
            local, states = states[0], [None] * trainer.world_size
            torch.distributed.all_gather_object(states, local)
        checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Store the states until training starts: what is built before it draws numbers, too."""
        self._states = checkpoint.get("random_states", [])
        self._running_sums = checkpoint.get("running_sums", {})
        self._places = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the states, and the loader's place in the epoch.

        Lightning 2.6 forgets the latter if the schedule reads `estimated_stepping_batches`.
        """
        if self._places:
            trainer.train_dataloader.load_state_dict(self._places[0])
        if len(self._states) == trainer.world_size:
            write_states(self._states[trainer.global_rank], pl_module.device)
        elif trainer.ckpt_path:
            log.warning(
                f"{trainer.ckpt_path} holds the random states of {len(self._states)} processes and "
                f"this run has {trainer.world_size}: it goes on, but not to the last bit as if it "
                "had never stopped"
            )
        self._states, self._places = [], []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """After the first batch, add to the epoch's running means what came before it."""
        results = trainer.fit_loop.epoch_loop._results
        for key in self._running_sums.keys() & results.keys():  # some are logged in one phase only
            metric, (value, weight) = results[key], self._running_sums[key]
            metric.value += value.to(metric.value.device)
            metric.cumulated_batch_size += weight.to(metric.value.device)
        self._running_sums = {}


def read_states(device: torch.device) -> dict[str, Any]:
    """Return the generators' states as plain types, which load with `weights_only`."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return {
        "python": random.getstate(),
        "numpy": numpy,
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


class MetricsTable(ExperimentWriter):
    """metrics.csv, rewritten with all rows each time, so that it is never half written."""

    def __init__(self, folder: str, rows: Iterable[dict[str, Any]]):
        super().__init__(folder)
        self.rows = list(rows)

    def _check_log_dir_exists(self) -> None:
        """Do not delete the file of the run before."""

    def save(self) -> None:
        """Write the rows so far."""
        if not self.metrics:
            return
        self.rows += self.metrics
        self.metrics = []
        with (
            atomic_write(Path(self.metrics_file_path)) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, sorted({key for row in self.rows for key in row}))
            writer.writeheader()
            writer.writerows(self.rows)


@rank_zero_only
def keep_metrics(
    loggers: Iterable[Logger], checkpoint: dict[str, Any], ckpt_path: str | None = None
) -> None:
    """Begin metrics.csv with the rows of the steps before a checkpoint ({}: none) and its own.

    In a new folder they come from the metrics.csv beside `ckpt_path`, or else from the checkpoint,
    a row an epoch. Call it before the fit.
    """
    step, last = checkpoint.get("global_step", 0), checkpoint.get("epoch_metrics")
    for logger in loggers:
        if not isinstance(logger, CSVLogger):
            continue
        path = Path(logger.log_dir) / "metrics.csv"
        rows = read_rows(path)
        if not rows and ckpt_path:
            rows = read_rows(Path(ckpt_path).with_name(path.name)) or history_rows(checkpoint)
        before = [row for row in rows if int(row["step"]) < step]
        # An earlier release could be killed within a row: its last cells are None.
        before = [{key: value for key, value in row.items() if key and value} for row in before]
        logger._experiment = table = MetricsTable(logger.log_dir, before)
        if (
            last
            and rows
            and not any(
                int(row["step"]) == last["step"] and last.keys() <= row.keys() for row in before
            )
        ):
            table.metrics = [last]  # killed before it was written
            table.save()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.csv that have a step; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if (row["step"] or "").isdigit()]


def history_rows(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each epoch in a checkpoint's metrics, as if all had equally many steps."""
    steps = checkpoint["global_step"] / (checkpoint["epoch"] + 1)
    rows = [
        {"epoch": epoch, "step": round((epoch + 1) * steps) - 1, **metrics}
        for epoch, metrics in read_history(checkpoint).items()
    ]
    return [{key: str(value) for key, value in row.items()} for row in rows]
