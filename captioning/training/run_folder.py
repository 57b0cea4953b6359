"""What a run leaves behind for its readers: run.json, curves.png and a readable log.

Lightning's metrics enter at the end of each epoch. run.json says from the first second what ran
where, and at last how it ended; an interrupted or failed run says so too.
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import mode_of
from captioning.training.best_checkpoint import BestCheckpoint
from captioning.training.curves import draw_curves
from captioning.training.log_lines import epoch_line, sample_table
from captioning.training.provenance import provenance
from captioning.training.validation import Generated, ValidationCaptions, evenly_spaced

log = logging.getLogger(__name__)

SAMPLES = 7  # captions shown in the log each epoch


class RunFolder(pl.Callback):
    """Keeps run.json in `folder`, logs a line and sample captions an epoch, draws curves.png.

    The best epoch is that of best.ckpt, and there is none without a BestCheckpoint. The metrics of
    all epochs travel in the checkpoints, so a resumed run draws them all.
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
        """Go on from the metrics of a checkpoint."""
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
        """Start the epoch's clock, and tell of the one before: its checkpoints are written now."""
        self._write(trainer, "running")
        self._epoch_start = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the validation metrics and a few captions of always the same pictures."""
        if trainer.sanity_checking or not self._run:
            return
        self._note(trainer, "val/")
        if any(isinstance(callback, ValidationCaptions) for callback in trainer.callbacks):
            self._samples = evenly_spaced(ValidationCaptions.of(trainer), SAMPLES)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch; validation has come before, and checkpoints come after."""
        self._seconds.append(time.monotonic() - self._epoch_start)
        self._note(trainer, "train/")
        metrics = self.history[trainer.current_epoch]
        metrics["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        if not trainer.is_global_zero:
            return
        log.info("%s", epoch_line(trainer.current_epoch, metrics))
        if self._samples:
            log.info("%s", sample_table(self._samples))
            for logger in trainer.loggers:
                if hasattr(logger.experiment, "add_text"):
                    markdown = sample_table(self._samples, markdown=True)
                    logger.experiment.add_text("val/captions", markdown, trainer.global_step)
        self._samples = []

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write how it ended."""
        self._finish(trainer, "finished")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write how it ended: pruned by a search, interrupted (Ctrl-C, SIGTERM), or failed."""
        status = (
            "interrupted" if isinstance(exception, KeyboardInterrupt | SystemExit) else "failed"
        )
        if type(exception).__name__ == "TrialPruned":  # Optuna's, which may not be installed
            status = "pruned"
        if self._run and status == "failed":
            self._run["error"] = f"{type(exception).__name__}: {exception}"
        with suppress(OSError):  # a full disk may be what broke it
            self._finish(trainer, status)

    def _note(self, trainer: pl.Trainer, stage: str) -> None:
        metrics = self.history.setdefault(trainer.current_epoch, {})
        for key, value in trainer.callback_metrics.items():
            if key.startswith(stage):
                metrics[key] = float(value)

    def _finish(self, trainer: pl.Trainer, status: str) -> None:
        if self._run and trainer.is_global_zero:
            self._write(trainer, status)
            title = " / ".join(self.folder.resolve().parts[-2:])
            epoch = self._best(trainer)["best_epoch"]
            draw_curves(self.folder / "curves.png", title, self.history, epoch)
        self._run = {}  # what the trainer does after the fit is not this run

    def _best(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return what run.json says of best.ckpt: of none, the metrics of the last epoch."""
        best, last = BestCheckpoint.of(trainer), self.history.get(max(self.history, default=0), {})
        if best is None or best.best_epoch is None:
            none = dict.fromkeys(("best_score", "best_epoch", "best_checkpoint"))
            return none | {"metrics": finite(last)}
        return finite({"best_score": best.best_score}) | {
            "best_epoch": best.best_epoch,
            "best_checkpoint": os.path.relpath(best.path, self.folder.resolve()),
            "metrics": finite(self.history.get(best.best_epoch, last) | best.best_metrics),
        }

    def _write(self, trainer: pl.Trainer, status: str) -> None:
        if not trainer.is_global_zero:
            return
        pace = round(statistics.median(self._seconds), 2) if self._seconds else None
        content = {
            "status": status,
            **self._run,
            "epochs": len(self.history),
            "seconds": round(time.monotonic() - self._start, 2),
            "seconds_per_epoch": pace,
            **self._best(trainer),
            "history": [{"epoch": at} | finite(self.history[at]) for at in sorted(self.history)],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """Return the metrics with null for what JSON cannot say."""
    return {key: value if math.isfinite(value) else None for key, value in metrics.items()}
