"""best.ckpt and last.ckpt, whatever folder the run began in.

Lightning's checkpoint state holds absolute paths: where a run goes on in another folder, it forgets
the best score, and a worse epoch overwrites best.ckpt.
"""

from __future__ import annotations

import logging
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from captioning import UserError
from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import mode_of
from captioning.training.checkpoint_io import read_history

log = logging.getLogger(__name__)


class PortableCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint of one fixed file name that stores no path, and restores none."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the file in `dirpath` is all there is to know."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Ignore the paths that earlier releases stored."""


class BestCheckpoint(PortableCheckpoint):
    """Keeps best.ckpt in `dirpath`: the epoch with the best `monitor`, by the metric's own mode.

    Where a run goes on, best.ckpt is looked for in `dirpath` and beside the checkpoint that it goes
    on from, and copied if it lies elsewhere. `best_epoch` and `best_score` are those of the file;
    None before there is one.
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
        self.scores: dict[int, float] = {}  # of all epochs so far
        self.best_metrics: dict[str, float] = {}
        self.last: list[float] = []  # the step of the last validation, and its score
        self._better = max if mode == "max" else min

    @staticmethod
    def of(trainer: pl.Trainer) -> BestCheckpoint | None:
        """Return the trainer's BestCheckpoint, None where it has none."""
        kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
        return kept[0] if kept else None

    def state_dict(self) -> dict[str, Any]:
        """Return the score of each epoch, by which best.ckpt is known to be of the same run."""
        return {"scores": self.scores, "last": self.last, "metrics": self.best_metrics}

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Record the score of this epoch, the better one of two, and say whether it is the best."""
        if current is not None and not torch.isnan(current):
            score, epoch = float(current), trainer.current_epoch
            self.last = [trainer.global_step, score]
            self.scores[epoch] = self._better(score, self.scores.get(epoch, score))
        return super().check_monitor_top_k(trainer, current)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)  # where a disk is full, the file before stays
        self.best_epoch, self.best_score = trainer.current_epoch, float(self.current_score)
        logged = trainer.callback_metrics.items()
        self.best_metrics = {key: float(value) for key, value in logged if key.startswith("val/")}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the best checkpoint of the epochs before along. Needs no file of theirs later."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.scores = self._scores_in(checkpoint)
        best = None
        if trainer.is_global_zero:
            best = self._copy_best(Path(trainer.ckpt_path), checkpoint)
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
        """Make best.ckpt the best of the checkpoints at hand; return its score and epoch.

        They are best.ckpt in `dirpath`, the one beside `source`, and the `checkpoint` in `source`.
        """
        at_hand = {}
        beside = source.absolute().parent.resolve() / self.path.name
        for path in dict.fromkeys([self.path, beside]):
            if (other := read(path)) is None:
                continue
            scores, its_epoch = self._scores_in(other), other["epoch"]
            same_run = its_epoch in scores and all(
                self.scores.get(at, score) == score for at, score in scores.items()
            )
            if path == self.path and not same_run:
                raise UserError(
                    f"{path} is of another run than {source}; name another folder with "
                    "hydra.run.dir=NEW, or move that file away"
                )
            # In its own folder it may be later, where the run was killed before last.ckpt.
            if same_run and (path == self.path or its_epoch in self.scores):
                at_hand[path] = (scores[its_epoch], its_epoch)
        step, score = self._state_in(checkpoint).get("last") or (
            checkpoint["global_step"],
            self.scores.get(checkpoint["epoch"]),
        )
        if score is not None and step == checkpoint["global_step"]:
            at_hand[source] = (score, checkpoint["epoch"])
        path = self._better(at_hand, key=lambda each: at_hand[each][0], default=None)
        best = at_hand.get(path)
        top = self._better(self.scores, key=self.scores.get, default=None)
        if top is not None and (best is None or self._better(best[0], self.scores[top]) != best[0]):
            log.warning(
                "no best.ckpt beside %s has the weights of epoch %d, the best so far: %s %.4f",
                source,
                top,
                self.monitor,
                self.scores[top],
            )
        if path not in (None, self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as temporary:
                shutil.copyfile(path, temporary)
        return best

    def _state_in(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        return checkpoint.get("callbacks", {}).get(self.state_key, {})

    def _scores_in(self, checkpoint: dict[str, Any]) -> dict[int, float]:
        """Return the monitored score by epoch; RunFolder knows those of another `monitor`, too."""
        if state := self._state_in(checkpoint):
            return dict(state["scores"])
        history = read_history(checkpoint).items()
        scores = {epoch: row.get(self.monitor, math.nan) for epoch, row in history}
        return {epoch: score for epoch, score in scores.items() if not math.isnan(score)}


def read(path: Path) -> dict[str, Any] | None:
    """Return what an intact checkpoint holds; None for anything else, or nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # checksums, which torch.load does not look at
                return None
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # what a foreign file makes of the reader has no common class
        return None
    return checkpoint if isinstance(checkpoint, dict) and "epoch" in checkpoint else None
