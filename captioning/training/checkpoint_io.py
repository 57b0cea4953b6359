"""Checkpoints and metrics.csv that are whole or not there, wherever the run was killed.

Lightning writes a checkpoint into the system's temporary folder and moves it: where that is another
file system, a kill leaves half a file under the final name. And its CSV logger deletes what it
finds, and rewrites the file in place where a new metric comes.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from captioning.data.atomic import atomic_write


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its final name, and to the disk, before it takes that name."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save a checkpoint; the one before stays where this fails."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        content = io.BytesIO()
        torch.save(checkpoint, content)  # to a full disk it would end the process
        try:
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # a full disk has use for it
            raise


class WholeTable(ExperimentWriter):
    """metrics.csv, written anew each time with all rows."""

    def __init__(self, folder: str, rows: Iterable[dict[str, Any]]):
        super().__init__(folder)
        self.rows = list(rows)

    def _check_log_dir_exists(self) -> None:
        """Delete nothing."""

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
    """Keep what metrics.csv says of the steps before a checkpoint ({}: none), and its own.

    Where a run goes on in another folder, it begins with the metrics.csv beside `ckpt_path`, or
    with a row for each epoch that the checkpoint knows. Call it before the fit.
    """
    step, last = checkpoint.get("global_step", 0), checkpoint.get("epoch_metrics")
    for logger in loggers:
        if not isinstance(logger, CSVLogger):
            continue
        path = Path(logger.log_dir) / "metrics.csv"
        rows = read_rows(path)
        if not rows and ckpt_path:
            rows = read_rows(Path(ckpt_path).with_name(path.name)) or history_rows(checkpoint)
        # Of runs before there were whole files: a cell that a kill cut off is None.
        kept = [row for row in rows if int(row["step"]) < step]
        kept = [{key: value for key, value in row.items() if key and value} for row in kept]
        logger._experiment = table = WholeTable(logger.log_dir, kept)
        written = [one for one in kept if last and int(one["step"]) == last["step"]]
        if last and rows and not any(last.keys() <= one.keys() for one in written):
            table.metrics = [last]  # killed before it was written
            table.save()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.csv that have a step; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if (row["step"] or "").isdigit()]


def read_history(checkpoint: Mapping[str, Any]) -> Mapping[int, Mapping[str, float]]:
    """Return the metrics by epoch that RunFolder left in a checkpoint; {} where it did not."""
    return checkpoint.get("callbacks", {}).get("RunFolder", {}).get("history", {})


def history_rows(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each epoch in a checkpoint's metrics, as if all had equally many steps."""
    steps = checkpoint["global_step"] / (checkpoint["epoch"] + 1)
    rows = [
        {"epoch": epoch, "step": round((epoch + 1) * steps) - 1, **metrics}
        for epoch, metrics in read_history(checkpoint).items()
    ]
    return [{key: str(value) for key, value in row.items()} for row in rows]
