"""Go on from a checkpoint of the same model and data, as the same run to the last bit.

Lightning's checkpoints hold no generator's state, nor the mean loss of an epoch half done. Metrics
of an epoch are written after its checkpoint, and the CSV logger deletes the metrics.csv it finds.
"""

import csv
import logging
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from captioning import UserError
from captioning.checkpoint import shapes
from captioning.config.compose import differences
from captioning.config.trust import WRITTEN
from captioning.data.atomic import atomic_write
from captioning.features.datamodule import CaptionDataModule
from captioning.models.decoder import Decoder
from captioning.training.validation import all_gather_interleaved, find_callback

log = logging.getLogger(__name__)

# Of this run; init was read at its first start.
NOT_LOGGED = re.compile(rf"(logger|ckpt_path|init|mode)\b|(.*\.)?({'|'.join(WRITTEN)}):")
MAY_DIFFER = ("model.dropout:", "data.root:", "data.skip_unreadable:")


def check_unfinished(
    path: str, checkpoint: Mapping[str, Any], trainer: pl.Trainer, may_be_done: bool
) -> None:
    """Raise UserError if a checkpoint was trained for longer than the trainer's limits.

    Or for as long, unless it `may_be_done`: a finished job that is queued again ends well.
    """
    if "optimizer_states" not in checkpoint:
        raise UserError(f"{path} holds weights only; a run goes on from its last.ckpt")
    is_whole = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
    timer = find_callback(trainer, Timer)
    seconds = checkpoint.get("callbacks", {}).get("Timer", {}).get("time_elapsed", {})
    for unit, done, limit in (
        ("epochs", checkpoint["epoch"] + is_whole, trainer.max_epochs),
        ("steps", checkpoint["global_step"], trainer.max_steps),
        ("seconds", int(seconds.get("train", 0)), int(timer.time_remaining()) if timer else -1),
    ):
        if -1 < limit < done + (unit == "seconds" or not may_be_done):
            more = f"trainer.max_{unit}={2 * done}"
            if unit == "seconds":
                more = "a larger trainer.max_time (it counts from the first start)"
            raise UserError(
                f"{path} was already trained for {done} {unit}; type {more} to train it for longer"
            )


def check_same(
    path: str,
    checkpoint: Mapping[str, Any],
    config: Mapping[str, Any],
    data: CaptionDataModule,
    decoder: Decoder,
) -> None:
    """Raise UserError for another model, data, encoder or vocabulary; log what else differs."""
    contents = checkpoint["captioning"]
    lines = [x for x in differences(contents["config"], config) if not NOT_LOGGED.match(x)]
    changed = [line for line in lines if line.startswith(("model.", "data."))]
    changed = [x for x in changed if not x.startswith(MAY_DIFFER) and ": absent →" not in x]
    changed += differences(contents["encoder"], data.encoder.identity, "encoder.")
    if not changed and shapes(checkpoint["state_dict"]) != shapes(decoder.state_dict(), "decoder."):
        changed = ["model: its weights have other sizes"]
    found = words = contents["vocabulary"]
    if not changed and not data.source.skip_unreadable:  # or they are known after encoding only
        data.read_captions()
        found = data.vocabulary.words
    if found != words:
        odd = ", ".join(sorted({*words} ^ {*found})[:5])
        changed = [line for line in lines if line.startswith(("data.", "datamodule.min_count"))]
        changed += [f"vocabulary: {len(words)} → {len(found)} words, not in both: {odd}"]
    if changed:
        changed = [line for line in changed if not line.endswith("→ absent")] or changed
        raise UserError(
            f"{path} was trained with other settings ({'; '.join(changed)}); type those, or none "
            "of them, to go on, or leave out ckpt_path= to train from the start"
        )
    if lines:
        log.info("%s goes on with other settings: %s", path, "; ".join(lines))


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
        checkpoint["random_states"] = all_gather_interleaved(trainer, states)

    def on_load_checkpoint(self, trainer: pl.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Hold the states back until training starts: building draws random numbers, too."""
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
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


class MetricsTable(ExperimentWriter):
    """metrics.csv, rewritten with all rows each time, so that it is never half written."""

    def __init__(self, folder: str, rows: Iterable[dict[str, Any]]):
        super().__init__(folder)
        self.rows = list(rows)

    def _check_log_dir_exists(self) -> None:
        """Do nothing, instead of deleting the file of the run before."""

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

    In a new folder they come from the metrics.csv beside `ckpt_path`. Call it before the fit.
    """
    step, last = checkpoint.get("global_step", 0), checkpoint.get("epoch_metrics")
    for logger in loggers:
        if not isinstance(logger, CSVLogger):
            continue
        path = Path(logger.log_dir) / "metrics.csv"
        rows = read_rows(path)
        if not rows and ckpt_path:
            rows = read_rows(Path(ckpt_path).with_name(path.name))
        rows = [row for row in rows if int(row["step"]) < step]
        logger._experiment = table = MetricsTable(logger.log_dir, rows)
        if not last:
            continue
        same_step = [row for row in rows if int(row["step"]) == last["step"]]
        if not any(last.keys() <= row.keys() for row in same_step):
            table.metrics = [last]  # killed before it was written
            table.save()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the filled cells of each row of a metrics.csv; no rows where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["step"]]
    return [{key: value for key, value in row.items() if value} for row in rows]
