"""A fit that may stop before its end, and what is said then and at the end.

A trainer, a module and data enter; scores are printed. Out of memory, a small disk, a dead process,
SIGTERM, Ctrl-C leave as `UserError` or an exit code; a loss that is no number has its own error.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from captioning import UserError
from captioning.training.finite import FiniteLoss
from captioning.training.last_epoch import LastEpoch
from captioning.training.out_of_memory import OutOfMemory
from captioning.training.preemption import CODE, Preemption
from captioning.training.validation import ValidationCaptions

FILES = 3  # best.ckpt, last.ckpt and the one that is written
BYTES = 12  # a trained number: itself and two moments, in float32


def default_callbacks(folder: str) -> list[pl.Callback]:
    """Return the callbacks that every run has, whatever its config names."""
    return [FiniteLoss(folder), OutOfMemory(), Preemption(folder), LastEpoch()]


def fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    ckpt_path: str | None,
    go_on: str,
) -> None:
    """Train to the end, or stop with a sentence; `go_on` is what to type then."""
    check_room(Path(trainer.default_root_dir), module)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        if any(isinstance(one, Preemption) and one.told for one in trainer.callbacks):
            raise SIGTERMException(CODE)  # in the last validation
    except (RuntimeError, MemoryError) as error:
        advice = [one.advice for one in trainer.callbacks if isinstance(one, OutOfMemory)]
        if any(advice):
            raise UserError(f"{advice[0]}; {go_on} goes on") from error
        if "DataLoader worker" in str(error):
            raise UserError(
                f"a process that read data has died ({str(error).splitlines()[0]}), killed for its "
                f"memory as a rule; {go_on} goes on"
            ) from error
        raise
    except SystemExit as stop:  # Lightning makes Ctrl-C one
        told = isinstance(stop, SIGTERMException)
        ending = f":\n  {go_on}" if go_on.startswith("python") else f"; {go_on} goes on"
        print(f"\nstopped{' and saved' if told else ''}{ending}", file=sys.stderr)
        raise SystemExit(CODE if told else 130) from None


def check_room(folder: Path, module: pl.LightningModule) -> None:
    """Raise UserError where the checkpoints of a run will not fit on its disk."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    needed, free = FILES * BYTES * numbers, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the checkpoints of {numbers:,} weights take {needed / 1e9:,.2f} GB, and {folder} has "
            f"{free / 1e9:,.2f} GB left; make room, or name another disk with hydra.run.dir=FOLDER"
        )


def command() -> str:
    """Return what goes on with the run that this process is, in its own folder."""
    config = HydraConfig.get()
    own = ("ckpt_path=", "hydra.run.dir=")
    given = [*config.overrides.task, *config.overrides.hydra]
    given = [one for one in given if not one.startswith((*own, "hydra.mode="))]
    more = [f"hydra.run.dir={config.runtime.output_dir}", "ckpt_path=last"]
    return shlex.join(["python", "-m", "captioning.train", *given, *more])


def filter_lightning_warnings() -> None:
    """Leave out what Lightning says to everybody."""
    # Lightning's advice that does not apply: batches are gathered, not loaded; the run's folder
    # is meant to hold everything. The last is its own use of a torch function that has moved.
    for told in (
        "The '.*dataloader' does not have many workers",
        "The number of training batches .* is smaller than the logging interval",
        ".*exists and is not empty",
        ".*LeafSpec",
        ".*callbacks used to create the checkpoint need to be provided",  # of another monitor
        # Scores of captions are gathered before they are logged, equal on every process.
        "It is recommended to use .*sync_dist=True",
    ):
        warnings.filterwarnings("ignore", told)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def report(trainer: Trainer, best: str | None) -> None:
    """Print the scores, some captions with their pictures, and where everything is.

    `best` is the checkpoint that was validated, None for the weights of the last epoch.
    """
    captioned = any(isinstance(each, ValidationCaptions) for each in trainer.callbacks)
    generated = ValidationCaptions.of(trainer) if captioned else []  # by all processes together
    if not trainer.is_global_zero:
        return
    folder = Path(trainer.default_root_dir)
    scores = {key: float(value) for key, value in trainer.callback_metrics.items()}
    print(f"\nscores of {best or 'the last epoch'} on the validation split:")
    for key in sorted(key for key in scores if key.startswith("val/")):
        print(f"  {key.removeprefix('val/'):30} {scores[key]:.4f}")
    if generated:
        print("\ncaptions:")
    for one in generated[:: max(1, len(generated) // 5)][:5]:
        print(f"  {one.record.path}\n    {one.caption}")
    checkpoint = best or next((one.best_model_path for one in trainer.checkpoint_callbacks), "none")
    print(f"\ncheckpoint: {checkpoint}")
    if (folder / "gallery.html").exists():
        print(f"gallery:    {folder / 'gallery.html'}")


def is_over(checkpoint: dict[str, Any], max_epochs: int | None) -> bool:
    """Say whether a checkpoint is of the end of the last epoch."""
    if max_epochs is None or max_epochs < 0 or checkpoint["epoch"] + 1 < max_epochs:
        return False
    return checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
