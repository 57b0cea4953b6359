"""A run's folder: run.json, curves.png, and a log with a line and sample captions an epoch.

run.json says from the first second what runs where, and at the end how it ended.
"""

import json
import logging
import math
import os
import statistics
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import TABLE, mode_of
from captioning.training.best_checkpoint import BestCheckpoint
from captioning.training.curves import draw_curves
from captioning.training.provenance import provenance
from captioning.training.validation import (
    Generated,
    ValidationCaptions,
    evenly_spaced,
    find_callback,
)

log = logging.getLogger(__name__)

SAMPLES = 7  # captions shown in the log each epoch


class RunFolder(pl.Callback):
    """Keeps run.json in `folder`, logs a line and sample captions an epoch, draws curves.png.

    The best epoch is that of BestCheckpoint; without one there is none. The metrics of all epochs
    are in the checkpoints, so that a resumed run draws them all.
    """

    def __init__(self, folder: str, monitor: str):
        self.folder = Path(folder)
        self.monitor = monitor
        self.history: dict[int, dict[str, float]] = {}
        self._samples: list[Generated] = []
        self._run: dict[str, Any] = {}
        self._seconds: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics and the seconds of all epochs, for the checkpoint."""
        return {"history": self.history, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metrics and seconds of a checkpoint."""
        self.history = state_dict["history"]
        self._seconds = state_dict.get("seconds", [])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known before the first step."""
        self._start = self._epoch_start = time.monotonic()
        weights = [weight for weight in pl_module.parameters() if weight.requires_grad]
        encoder = getattr(trainer.datamodule, "encoder", None)
        self._run = provenance(pl_module.device) | {
            "trained_parameters": sum(weight.numel() for weight in weights),
            "encoder": getattr(encoder, "identity", None),
            "monitor": self.monitor,
            "mode": mode_of(self.monitor),
        }
        self._write(trainer, "running")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch before, whose checkpoints are there now; start this epoch's clock."""
        self._write(trainer, "running")
        self._epoch_start = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the validation metrics, and sample captions, of the same images every time."""
        if trainer.sanity_checking or not self._run:
            return
        self._record(trainer, "val/")
        if find_callback(trainer, ValidationCaptions):
            self._samples = evenly_spaced(ValidationCaptions.of(trainer), SAMPLES)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch; validation comes before, checkpoints come after."""
        self._seconds.append(time.monotonic() - self._epoch_start)
        self._record(trainer, "train/")
        metrics = self.history[trainer.current_epoch]
        metrics["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        samples, self._samples = self._samples, []
        if not trainer.is_global_zero:
            return
        log.info(format_epoch(trainer.current_epoch, metrics))
        if not samples:
            return
        log.info(format_samples(samples))
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_text"):
                text = format_samples(samples, markdown=True)
                logger.experiment.add_text("val/captions", text, trainer.global_step)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write that the run is finished."""
        self._finish(trainer, "finished")

    def on_exception(self, trainer: pl.Trainer, _: Any, exception: BaseException) -> None:
        """Write how it ended: pruned by a search, interrupted (Ctrl-C, SIGTERM), or failed."""
        if type(exception).__name__ == "TrialPruned":  # Optuna's, which may not be installed
            status = "pruned"
        elif isinstance(exception, KeyboardInterrupt | SystemExit):
            status = "interrupted"
        else:
            status = "failed"
            if self._run:
                self._run["error"] = f"{type(exception).__name__}: {exception}"
        with suppress(OSError):  # a full disk may be the reason
            self._finish(trainer, status)

    def _record(self, trainer: pl.Trainer, prefix: str) -> None:
        metrics = self.history.setdefault(trainer.current_epoch, {})
        logged = trainer.callback_metrics.items()
        metrics |= {key: float(value) for key, value in logged if key.startswith(prefix)}

    def _finish(self, trainer: pl.Trainer, status: str) -> None:
        if self._run and trainer.is_global_zero:
            self._write(trainer, status)
            title = " / ".join(self.folder.resolve().parts[-2:])
            epoch = self._describe_best(trainer)["best_epoch"]
            draw_curves(self.folder / "curves.png", title, self.history, epoch)
        self._run = {}  # a validation after the fit is not part of the run

    def _describe_best(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return run.json's entries on best.ckpt; without one, the metrics of the last epoch."""
        best, last = (
            find_callback(trainer, BestCheckpoint),
            self.history.get(max(self.history, default=0), {}),
        )
        if best is None or best.best_epoch is None:
            missing = dict.fromkeys(("best_score", "best_epoch", "best_checkpoint"))
            return missing | {"metrics": replace_nonfinite(last)}
        metrics = self.history.get(best.best_epoch, last) | best.best_metrics
        return replace_nonfinite({"best_score": best.best_score}) | {
            "best_epoch": best.best_epoch,
            "best_checkpoint": os.path.relpath(best.path, self.folder.resolve()),
            "metrics": replace_nonfinite(metrics),
        }

    def _write(self, trainer: pl.Trainer, status: str) -> None:
        if not trainer.is_global_zero:
            return
        content = {
            "status": status,
            **self._run,
            "epochs": len(self.history),
            "seconds": round(time.monotonic() - self._start, 2),
            "seconds_per_epoch": (
                round(statistics.median(self._seconds), 2) if self._seconds else None
            ),
            **self._describe_best(trainer),
            "history": [
                {"epoch": epoch} | replace_nonfinite(metrics)
                for epoch, metrics in sorted(self.history.items())
            ],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def replace_nonfinite(metrics: dict[str, float]) -> dict[str, float | None]:
    """Return the metrics with None for NaN and infinity, which JSON does not have."""
    return {key: value if math.isfinite(value) else None for key, value in metrics.items()}


def format_epoch(epoch: int, metrics: Mapping[str, float]) -> str:
    """Format one line on an epoch: reward, losses in training / validation, and main scores."""
    parts = [f"reward {metrics['train/reward']:.2f}"] if "train/reward" in metrics else []
    losses = [f"{metrics[key]:.2f}" for key in ("train/loss", "val/loss") if key in metrics]
    if losses:
        parts.append("loss " + " / ".join(losses))
    for key, score in TABLE.items():
        if score.rank == 1 and f"val/{key}" in metrics:
            rescaled = metrics.get(f"val/{key}_rescaled")
            suffix = "" if rescaled is None else f" ({rescaled:.2f} rescaled)"
            parts.append(f"{key} {metrics[f'val/{key}']:.2f}{suffix}")
    return f"epoch {epoch}: " + ", ".join(parts)


def format_samples(samples: Sequence[Generated], markdown: bool = False) -> str:
    """Format a table of images, captions and one reference of each, as text or Markdown."""
    rows = [("image", "caption", "a reference")]
    for record, caption, _ in samples:
        rows.append((record.image_id, caption, next(iter(record.captions), "")))
    if markdown:
        rows.insert(1, ("---",) * 3)
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    cells = [[textwrap.shorten(cell, 60, placeholder=" …") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
