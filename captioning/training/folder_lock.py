"""One run a folder: a second one is refused before it overwrites anything.

Hydra writes its files before it calls the verb, so that it asks first (`hydra.callbacks`).
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from captioning import UserError

# Where Lightning, torchrun and SLURM say which process of a run this is, and of which machine.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


class ClaimFolder(Callback):
    """Holds the folder of a plain run from before Hydra writes there until the process ends."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder, or end with a sentence."""
        if "trials" in config:  # the workers of a search share a folder; its trials have their own
            return
        HydraConfig.instance().set_config(config)  # as Hydra does next, to name the folder
        try:
            self.lock = claim_folder(Path(config.hydra.run.dir), config.ckpt_path)
        except UserError as error:  # Hydra would make a warning of it
            sys.exit(f"error: {error}")


def claim_folder(folder: Path, ckpt_path: str | None) -> AbstractContextManager:
    """Hold a run's folder, for the first of its processes; the others have nothing to hold.

    Raises UserError where another process trains there, or where a run that does not go on from a
    checkpoint in it would overwrite what another run left.
    """
    if any(os.environ.get(key, "0") != "0" for key in RANKS):
        return nullcontext()
    goes_on = ckpt_path == "last" or (
        ckpt_path and Path(ckpt_path).absolute().parent.resolve() == folder.resolve()
    )
    # Where a run goes on elsewhere, best.ckpt is there before the first epoch has ended.
    names = ("last.ckpt",) if ckpt_path else ("last.ckpt", "best.ckpt", "metrics.csv")
    left = [] if goes_on else [name for name in names if (folder / name).exists()]
    if left:
        raise UserError(
            f"{folder} holds {left[0]} of another run; type ckpt_path=last to go on with that run, "
            "or name another folder: hydra.run.dir=NEW"
        )
    return lock_folder(folder)


def lock_folder(folder: Path) -> AbstractContextManager:
    """Make a run's folder and hold it; the process that holds it may do so again.

    Raises UserError where another process holds it. A process that dies lets go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / "lock", is_singleton=True).acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"another process trains in {folder} now; wait, stop it, or name another folder"
        ) from None


def last_checkpoint(folder: Path) -> str | None:
    """Return what a run in this folder goes on from: best.ckpt where it has no last.ckpt."""
    paths = (folder / "last.ckpt", folder / "best.ckpt")
    return next((str(path) for path in paths if path.exists()), None)
