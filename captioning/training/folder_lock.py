"""One run a folder: a second one is refused before it overwrites anything.

A run that goes on first takes the config of its checkpoint, which names the folder.
"""

import atexit
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from captioning import UserError
from captioning.config.stored_config import resumed_choices, resumed_config, typed_keys
from captioning.config.trust import check_hydra, error_text

# Set by Lightning, torchrun or SLURM; 0, or not set, in the first process of a run.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


class ClaimFolder(Callback):
    """Hydra callback that locks a run's folder, before Hydra writes there, until the run ends."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Lock the folder, or exit with an error; a new one that stays unused is removed."""
        HydraConfig.instance().set_config(config)  # as Hydra does next, to name the folder
        try:
            if "trials" in config:  # the workers of a search share a folder
                return
            is_run = "ckpt_path" in config  # or an evaluation, which may write beside a run's files
            if is_run:
                resume(config)
            folder = Path(config.hydra.run.dir)
            new = [each for each in (folder, *folder.parents) if not each.exists()]
            new *= is_first_process()
            if is_run:
                self.lock = claim_folder(folder, config.ckpt_path)
            elif new:
                self.lock = lock_folder(folder)
            if new:
                atexit.register(remove_unused, [*map(Path.absolute, new)], config.hydra.job.name)
        except Exception as error:  # Hydra would make a warning of it, and go on
            sys.exit(f"error: {error_text(error)}")


def is_first_process() -> bool:
    """Return whether this is the only process of a run, or the first of several."""
    return all(os.environ.get(key, "0") == "0" for key in RANKS)


def remove_unused(folders: Sequence[Path], job: str) -> None:
    """Remove the first, which this process has locked, if it holds what Hydra writes there at most.

    The others, above it, are removed where they are empty then.
    """
    if folders[0].is_dir() and {*os.listdir(folders[0])} <= {".hydra", "lock", f"{job}.log"}:
        shutil.rmtree(folders[0], ignore_errors=True)
        with suppress(OSError):
            for folder in folders[1:]:
                folder.rmdir()


def resume(config: DictConfig) -> None:
    """Take the config of the checkpoint that a run goes on from, but for what is typed."""
    path = config.ckpt_path
    if path == "last":
        path = last_checkpoint(Path(config.hydra.run.dir))
        if not path and "${now:" in OmegaConf.to_container(config.hydra.run)["dir"]:
            raise UserError(
                "ckpt_path=last is of the run's own folder, and this run's is new; type "
                "hydra.run.dir=FOLDER, too, or ckpt_path=FOLDER/last.ckpt"
            )
    if path:
        from captioning.checkpoint import read_checkpoint  # imports torch

        stored = read_checkpoint(path, "last.ckpt")["captioning"]["config"]
        overrides = config.hydra.overrides
        typed = typed_keys(overrides.task) - {"init"}  # the weights are the checkpoint's
        resumed_config(config, stored, typed)
        resumed_choices(config.hydra.runtime.choices, Path(path).parent, typed)
        check_hydra(config, [*overrides.task, *overrides.hydra])


def claim_folder(folder: Path, ckpt_path: str | None) -> AbstractContextManager:
    """Lock a run's folder in the first of its processes; do nothing in the others.

    Raises UserError if another process trains there, or if it holds another run's files.
    """
    if not is_first_process():
        return nullcontext()
    # A run that was resumed from another folder has best.ckpt before its first epoch has ended.
    names = ("last.ckpt",) if ckpt_path else ("last.ckpt", "best.ckpt", "metrics.csv")
    if ckpt_path == "last" or (ckpt_path and Path(ckpt_path).parent.resolve() == folder.resolve()):
        names = ()
    for name in names:
        if (folder / name).exists():
            raise UserError(
                f"{folder} holds {name} of another run; type ckpt_path=last to go on with that "
                "run, or name another folder: hydra.run.dir=NEW"
            )
    return lock_folder(folder)


def lock_folder(folder: Path) -> AbstractContextManager:
    """Create and lock a run's folder until this process ends; UserError if another holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / "lock", is_singleton=True).acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"another process trains in {folder} now; wait, stop it, or name another folder"
        ) from None


def last_checkpoint(folder: Path) -> str | None:
    """Return the checkpoint to resume from: last.ckpt, or else best.ckpt, or None."""
    paths = (folder / "last.ckpt", folder / "best.ckpt")
    return next((str(path) for path in paths if path.exists()), None)
