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

from captioning.data.records import UserError
from captioning.data.whole import whole
from captioning.metrics.table import mode_of

log = logging.getLogger(__name__)


class PortableCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint of one fixed file name that stores no path, and restores none."""

    @property
    def state_key(self) -> str:
        """Lightning's own key, under which checkpoints of earlier releases have their state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

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
        super().__init__(dirpath, "best", monitor, mode=mode, enable_version_counter=False)
        self.path = Path(self.dirpath, "best.ckpt")
        self.best_epoch: int | None = None
        self.best_score: float | None = None
        self.scores: dict[int, float] = {}  # of all epochs so far
        self._better = max if mode == "max" else min

    @staticmethod
    def of(trainer: pl.Trainer) -> BestCheckpoint | None:
        """Return the trainer's BestCheckpoint, None where it has none."""
        kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
        return kept[0] if kept else None

    def state_dict(self) -> dict[str, Any]:
        """Return the score of each epoch, by which best.ckpt is known to be of the same run."""
        return {"scores": self.scores}

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Record the score of this epoch, the better one of two, and say whether it is the best."""
        if current is not None and not torch.isnan(current):
            score, epoch = float(current), trainer.current_epoch
            self.scores[epoch] = self._better(score, self.scores.get(epoch, score))
        return super().check_monitor_top_k(trainer, current)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)  # where a disk is full, the file before stays
        self.best_epoch, self.best_score = trainer.current_epoch, float(self.current_score)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the best checkpoint of the epochs before along. Needs no file of theirs later."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.scores = self._scores_in(checkpoint)
        best = None
        if trainer.is_global_zero:
            best = self._take_along(Path(trainer.ckpt_path), checkpoint)
        best = trainer.strategy.broadcast(best)
        if best is None:
            return
        self.best_epoch, self.best_score = best
        self.best_model_path = self.kth_best_model_path = str(self.path)
        self.best_model_score = self.current_score = self.kth_value = torch.tensor(self.best_score)
        self.best_k_models = {str(self.path): self.best_model_score}

    def _take_along(self, source: Path, checkpoint: dict[str, Any]) -> tuple[int, float] | None:
        """Make best.ckpt the best of the checkpoints at hand; return its epoch and score."""
        epoch = checkpoint["epoch"]
        at_hand = []  # score, epoch, path
        for path in dict.fromkeys([self.path, source.absolute().parent.resolve() / self.path.name]):
            other = read(path)
            if other is None:
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
                at_hand.append((scores[its_epoch], its_epoch, path))
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if progress["is_last_batch"] and epoch in self.scores:
            at_hand.append((self.scores[epoch], epoch, source))
        best = self._better(at_hand, key=lambda each: each[0]) if at_hand else None
        if best and best[2] != self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with whole(self.path) as temporary:
                shutil.copyfile(best[2], temporary)
        self._warn_of_lost(source, best)
        return (best[1], best[0]) if best else None

    def _warn_of_lost(self, source: Path, best: tuple[float, int, Path] | None) -> None:
        """Warn where the weights of the best epoch so far are gone."""
        if not self.scores:
            return
        epoch = self._better(self.scores, key=self.scores.get)
        if best is None or self._better(best[0], self.scores[epoch]) != best[0]:
            log.warning(
                "epoch %d had the best %s so far, %.4f, but no best.ckpt with its weights lies "
                "beside %s: best.ckpt is %s until an epoch is better",
                epoch,
                self.monitor,
                self.scores[epoch],
                source,
                f"epoch {best[1]}, {best[0]:.4f}," if best else "not there",
            )

    def _scores_in(self, checkpoint: dict[str, Any]) -> dict[int, float]:
        """Return the monitored score by epoch; RunFolder knows those of another `monitor`, too."""
        states = checkpoint.get("callbacks", {})
        if "scores" in states.get(self.state_key, {}):
            return dict(states[self.state_key]["scores"])
        history = states.get("RunFolder", {}).get("history", {})
        scores = {epoch: row.get(self.monitor, math.nan) for epoch, row in history.items()}
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
