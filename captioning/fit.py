"""A fit that may stop before its end, and what is said then: a sentence, and what to type.

A trainer, a module and data enter. Out of memory, a small disk, a dead process, SIGTERM, Ctrl-C
leave as `UserError` or an exit code; a loss that is no number has an error of its own already.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

from captioning.callbacks.finite import FiniteLoss
from captioning.callbacks.memory import OutOfMemory
from captioning.callbacks.preemption import CODE, Preemption
from captioning.data.records import UserError

FILES = 3  # best.ckpt, last.ckpt and the one that is written
BYTES = 12  # a trained number: itself and two moments, in float32


def watchers(folder: str) -> list[pl.Callback]:
    """Return the callbacks that every run has, whatever its config names."""
    return [FiniteLoss(folder), OutOfMemory(), Preemption(folder)]


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
        print(f"stopped{' and saved' if told else ''}: {go_on} goes on", file=sys.stderr)
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
