"""A run's folder: run.json, curves.png, and a log with a line and sample captions per epoch."""

import json
import logging
import os
import statistics
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig

from captioning.config.cli import LATEST_RUN, LATEST_SWEEP
from captioning.config.compose import is_sweep_job
from captioning.data.atomic import atomic_write_text
from captioning.metrics.score_table import TABLE, format_score, mode_of
from captioning.training.best_checkpoint import BestCheckpoint
from captioning.training.curves import draw_curves
from captioning.training.folder_lock import last_checkpoint
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
    """Keeps run.json in `folder`, logs a line and sample captions per epoch, draws curves.png.

    run.json is there from the first second, and says at the end how the run ended. The best epoch
    is that of BestCheckpoint. Checkpoints hold the metrics of all epochs, for a resumed run.
    """

    def __init__(self, folder: str, monitor: str):
        self.folder = Path(folder)
        self.monitor = monitor
        self.history: dict[int, dict[str, float]] = {}
        self._samples: list[Generated] = []
        self._run: dict[str, Any] = {}
        self._seconds: list[float] = []
        self._is_linked = False

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics and the seconds of all epochs."""
        return {"history": self.history, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metrics and seconds of a checkpoint."""
        self.history = state_dict["history"]
        self._seconds = state_dict.get("seconds", [])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known before the first step."""
        self._start = self._epoch_start = time.monotonic()
        weights = [weight for weight in pl_module.parameters() if weight.requires_grad]
        self._run = provenance(pl_module.device) | {
            "trained_parameters": sum(weight.numel() for weight in weights),
            "encoder": trainer.datamodule.encoder.identity,
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
        if trainer.is_global_zero:
            log.info(format_epoch(trainer.current_epoch, metrics))
            if samples:
                log.info(format_samples(samples))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write that the run is finished."""
        self._finish(trainer, "finished")

    def on_exception(self, trainer: pl.Trainer, _: Any, exception: BaseException) -> None:
        """Write how the run ended, and draw its curves so far."""
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
            best = find_callback(trainer, BestCheckpoint)
            draw_curves(self.folder / "curves.png", title, self.history, best and best.best_epoch)
        self._run = {}  # a validation after the fit is not part of the run

    def _describe_best(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return run.json's entries on best.ckpt; without one, the metrics of the last epoch."""
        best = find_callback(trainer, BestCheckpoint)
        last = self.history.get(max(self.history, default=0), {})
        if best is None or best.best_epoch is None:
            missing = dict.fromkeys(("best_score", "best_epoch", "best_checkpoint"))
            return missing | {"metrics": last}
        return {
            "best_score": best.best_score,
            "best_epoch": best.best_epoch,
            "best_checkpoint": os.path.relpath(best.path, self.folder.resolve()),
            "metrics": self.history.get(best.best_epoch, last) | best.best_metrics,
        }

    def _write(self, trainer: pl.Trainer, status: str) -> None:
        if not trainer.is_global_zero:
            return
        seconds_per_epoch = round(statistics.median(self._seconds), 2) if self._seconds else None
        content = {
            "status": status,
            **self._run,
            "epochs": len(self.history),
            "seconds": round(time.monotonic() - self._start, 2),
            "seconds_per_epoch": seconds_per_epoch,
            **self._describe_best(trainer),
            "history": [{"epoch": epoch, **row} for epoch, row in sorted(self.history.items())],
        }
        # JSON has no NaN and no infinity.
        content = json.loads(json.dumps(content), parse_constant=lambda _: None)
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self.folder / "run.json", json.dumps(content, indent=2) + "\n")
        if not self._is_linked and last_checkpoint(self.folder):
            self._is_linked = True
            link_latest(self.folder)


def link_latest(folder: Path) -> None:
    """Let outputs/runs/latest lead to a run's folder, or outputs/sweeps/latest to a job's sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name == "tune":
        return  # the trials of a search are no runs
    link = LATEST_RUN
    if is_sweep_job():
        link, folder = LATEST_SWEEP, folder.parent
    temporary = link.with_name(f".latest-{os.getpid()}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(os.path.relpath(folder.resolve(), link.parent.resolve()))
        os.replace(temporary, link)
    except OSError as error:  # a file system without links, or latest is a folder
        temporary.unlink(missing_ok=True)
        log.warning("%s does not lead to this run: %s", link, error.strerror)


def format_epoch(epoch: int, metrics: Mapping[str, float]) -> str:
    """Format one line on an epoch: reward, losses in training / validation, and main scores."""
    shown = {key: format_score(key, value) for key, value in metrics.items()}
    parts = [f"reward {shown['train/reward']}"] if "train/reward" in shown else []
    losses = [shown[key] for key in ("train/loss", "val/loss") if key in shown]
    if losses:
        parts.append("loss " + " / ".join(losses))
    for key, score in TABLE.items():
        if score.rank == 1 and f"val/{key}" in shown:
            rescaled = shown.get(f"val/{key}_rescaled")
            suffix = f" ({rescaled} rescaled)" if rescaled else ""
            parts.append(f"{key} {shown[f'val/{key}']}{suffix}")
    return f"epoch {epoch}: " + ", ".join(parts)


def format_samples(samples: Sequence[Generated]) -> str:
    """Format images, captions and one reference of each as an aligned table."""
    rows = [("image", "caption", "a reference")]
    for record, caption, _ in samples:
        rows.append((record.image_id, caption, next(iter(record.captions), "")))
    cells = [[textwrap.shorten(cell, 60, placeholder=" …") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
