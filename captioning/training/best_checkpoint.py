"""best.ckpt and last.ckpt: never half written, and of the same run in whatever folder it goes on.

Lightning's checkpoint state holds absolute paths: a run that goes on in another folder loses its
best score, and a worse epoch overwrites best.ckpt. And Lightning moves files from the system's
temporary folder: on another file system, a kill leaves half of one under its final name.
"""

import io
import logging
import math
import os
import shutil
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from captioning import UserError
from captioning.checkpoint import read_history, read_intact
from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import mode_of

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name, and to the disk, before it takes that name."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save a checkpoint; the one before stays if this fails."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(checkpoint, content)  # into a file on a full disk, it would abort the process
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


class PortableCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint of one fixed file name that stores no path, and restores none."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the file in `dirpath` is the whole state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: what is restored depends on the folder, see `on_load_checkpoint`."""


class BestCheckpoint(PortableCheckpoint):
    """Keeps best.ckpt in `dirpath`: the epoch with the best `monitor`, by the metric's own mode.

    A resumed run copies the best.ckpt that lies beside the checkpoint it resumes from, if it is of
    the same run. `best_epoch` and `best_score` are those of the file; None without one.
    """

    def __init__(self, dirpath: str, monitor: str):
        mode = mode_of(monitor)
        super().__init__(
            dirpath,
            "best",
            monitor,
            mode=mode,
            enable_version_counter=False,
            # A loss in training is known after the epoch, not at a validation within it.
            save_on_train_epoch_end=monitor.startswith("train/") or None,
        )
        self.path = Path(self.dirpath, "best.ckpt")
        self.best_epoch: int | None = None
        self.best_score: float | None = None
        self.best_metrics: dict[str, float] = {}
        self.scores: dict[int, float] = {}  # of all epochs so far
        self.last: list[float] = []  # the step of the last validation, and its score
        self._better = max if mode == "max" else min

    @property
    def is_of_last_validation(self) -> bool:
        """Whether best.ckpt has the weights that this process validated last."""
        return self.last[1:] == [self.best_score] and self.best_epoch == max(self.scores)

    def state_dict(self) -> dict[str, Any]:
        """Return the score of each epoch, which shows whether a best.ckpt is of the same run."""
        return {"scores": self.scores, "last": self.last, "metrics": self.best_metrics}

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Return whether `current` is the best; record it, or the better of two in an epoch."""
        if current is not None and not torch.isnan(current):
            score, epoch = float(current), trainer.current_epoch
            self.last = [trainer.global_step, score]
            self.scores[epoch] = self._better(score, self.scores.get(epoch, score))
        return super().check_monitor_top_k(trainer, current)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)  # raises, with the file before, on a full disk
        self.best_epoch, self.best_score = trainer.current_epoch, float(self.current_score)
        logged = trainer.callback_metrics.items()
        self.best_metrics = {key: float(value) for key, value in logged if key.startswith("val/")}

    def on_load_checkpoint(self, trainer: pl.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the scores, and make best.ckpt the best of the epochs before."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.scores = self._scores_in(checkpoint)
        is_global_zero, source = trainer.is_global_zero, Path(trainer.ckpt_path)
        best = self._copy_best(source, checkpoint) if is_global_zero else None
        best = trainer.strategy.broadcast(best)
        if best is None:
            return
        self.best_score, self.best_epoch = best
        metrics = self._state_in(checkpoint).get("metrics", {})
        self.best_metrics = metrics if metrics.get(self.monitor) == self.best_score else {}
        self.best_model_path = self.kth_best_model_path = str(self.path)
        self.best_model_score = self.current_score = self.kth_value = torch.tensor(self.best_score)
        self.best_k_models = {str(self.path): self.best_model_score}

    def _copy_best(self, source: Path, checkpoint: dict[str, Any]) -> tuple[float, int] | None:
        """Make best.ckpt the best of itself, the one beside `source`, and `source`.

        Returns its score and epoch.
        """
        candidates = []  # (score, epoch, path)
        beside = source.parent.resolve() / self.path.name
        for path in dict.fromkeys([self.path, beside]):
            if (other := read_intact(path)) is None:
                continue
            scores, epoch = self._scores_in(other), other["epoch"]
            is_same_run = epoch in scores and all(
                self.scores.get(at, score) == score for at, score in scores.items()
            )
            if path == self.path and not is_same_run:
                raise UserError(
                    f"{path} is of another run than {source}; name another folder with "
                    "hydra.run.dir=NEW, or move that file away"
                )
            # In the run's own folder it may be later than `source`: killed before last.ckpt.
            if is_same_run and (path == self.path or epoch in self.scores):
                candidates.append((scores[epoch], epoch, path))
        epoch, step = checkpoint["epoch"], checkpoint["global_step"]
        validated, score = self._state_in(checkpoint).get("last") or (step, self.scores.get(epoch))
        if score is not None and validated == step:
            candidates.append((score, epoch, source))
        best = self._better(candidates, key=itemgetter(0), default=None)
        top = self._better(self.scores, key=self.scores.get, default=None)
        if top is not None and (best is None or self._better(best[0], self.scores[top]) != best[0]):
            log.warning(
                f"no best.ckpt beside {source} has the weights of epoch {top}, the best so far: "
                f"{self.monitor} {self.scores[top]:.4f}"
            )
        if best is None:
            return None
        score, epoch, path = best
        if path != self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as temporary:
                shutil.copyfile(path, temporary)
        return score, epoch

    def _state_in(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        return checkpoint.get("callbacks", {}).get(self.state_key, {})

    def _scores_in(self, checkpoint: dict[str, Any]) -> dict[int, float]:
        """Return the monitored score by epoch; RunFolder stores those of another `monitor`, too."""
        if state := self._state_in(checkpoint):
            return dict(state["scores"])
        history = read_history(checkpoint).items()
        scores = {epoch: row.get(self.monitor, math.nan) for epoch, row in history}
        return {epoch: score for epoch, score in scores.items() if not math.isnan(score)}
