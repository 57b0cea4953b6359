"""The jobs of a sweep: each in a folder named by what makes it differ, which says how it went.

A job's settings and config enter; status.json, and the traceback of a job that failed, leave. The
same job run again goes on, or is known to be finished. Next: runs.py, which reads the folders.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from captioning import UserError
from captioning.config.compose import differences
from captioning.data.atomic import atomic_write
from captioning.training.folder_lock import last_checkpoint, lock_folder

LONGEST = 180  # letters of a folder's name; file systems allow 255 bytes

log = logging.getLogger(__name__)


def job_name(settings: Mapping[str, str]) -> str:
    """Return a folder's name for a job with these settings: `model=lstm,seed=1`, keys sorted.

    It depends on nothing else, so that the same job finds its folder again. Where letters cannot
    be in a folder's name or are too many, the rest is told apart by a hash.
    """
    text = ",".join(f"{key}={settings[key]}" for key in sorted(settings))
    name = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", text)
    if name == text and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def read_status(folder: Path) -> dict[str, Any]:
    """Return what status.json says; {} where there is none."""
    path = folder / "status.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Say whether the job in this folder is done.

    Raises ChangedError where the folder holds a model that another config made.
    """
    status = read_status(folder)
    begun = status.get("status") == "finished" or last_checkpoint(folder)
    changed = differences(status["config"], config) if begun and status else []
    if changed:
        raise ChangedError(folder, changed)
    return status.get("status") == "finished"


class ChangedError(UserError):
    """A job's folder holds what another config made; `changes` are lines `key: old → new`."""

    def __init__(self, folder: Path, changes: list[str]):
        self.folder = folder
        self.changes = changes
        super().__init__(
            f"{folder} was trained with another config ({'; '.join(changes)}); type name=NEW for "
            "a sweep of its own, or delete that folder to train it again"
        )


def attempt(
    folder: Path, config: Mapping[str, Any], train: Callable[[str | None], float | None]
) -> float | None:
    """Call `train` with the folder's last checkpoint, if any; note in status.json how it went.

    Returns the score, at once where the job is finished. What breaks a job is raised again, after
    it is written down. Raises UserError where another process is at it, or its config changed.
    """
    with lock_folder(folder):
        if is_finished(folder, config):
            log.info("finished before: %s", folder)
            return read_status(folder)["score"]
        return _attempt(folder, config, train)


def _attempt(
    folder: Path, config: Mapping[str, Any], train: Callable[[str | None], float | None]
) -> float | None:
    start = time.time()

    def write(status: str, **more: Any) -> None:
        content = {"status": status, "host": platform.node(), "process": os.getpid()}
        content |= {"started": round(start), "seconds": round(time.time() - start, 1), **more}
        with atomic_write(folder / "status.json") as temporary:
            text = json.dumps(content | {"config": config}, indent=1) + "\n"
            temporary.write_text(text, "utf-8")

    write("running")
    try:
        score = train(last_checkpoint(folder))
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        reason = " ".join(f"{type(error).__name__}: {error}".removeprefix("UserError: ").split())
        if not stopped:
            log.error("failed: %s", reason, exc_info=not isinstance(error, UserError))
        with suppress(OSError):  # a full disk may be what broke it
            if not stopped:
                (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
            write("interrupted" if stopped else "failed", error=reason)
        _let_go(error)
        raise
    finally:
        _free_memory()
    (folder / "traceback.txt").unlink(missing_ok=True)  # of an attempt before
    write("finished", score=score)
    return score


def _let_go(error: BaseException | None) -> None:
    """Empty the frames of an error, which Hydra keeps: they hold the model and its data."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _free_memory() -> None:
    """Leave the next job of this process the memory, and its own run in Weights & Biases."""
    gc.collect()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()  # does nothing where no GPU was used
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
