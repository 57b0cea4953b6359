"""Run a sweep's job in its folder: resume it, skip it if finished, record its outcome.

The folder is named by the job's settings. status.json holds the outcome and the config,
traceback.txt the traceback of a failed job.
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
from captioning.data.atomic import atomic_write_text
from captioning.training.folder_lock import last_checkpoint, lock_folder

MAX_LENGTH = 180  # letters of a folder's name; file systems allow 255 bytes

log = logging.getLogger(__name__)


def job_name(settings: Mapping[str, str]) -> str:
    """Return a folder's name for a job with these settings: `model=lstm,seed=1`, keys sorted.

    A hash is added where letters are replaced or left out.
    """
    text = ",".join(f"{key}={settings[key]}" for key in sorted(settings))
    name = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", text)
    if name == text and len(name) <= MAX_LENGTH:
        return name
    return f"{name[:MAX_LENGTH]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def read_status(folder: Path) -> dict[str, Any]:
    """Read status.json; {} where there is none."""
    path = folder / "status.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Tell whether the job is done. Raises UserError for a model of another config."""
    status = read_status(folder)
    finished = status.get("status") == "finished"
    has_model = status and (finished or last_checkpoint(folder))
    if has_model and (changes := differences(status["config"], config)):
        raise UserError(
            f"{folder} was trained with another config ({'; '.join(changes)}); type name=NEW for "
            "a sweep of its own, or delete that folder to train it again"
        )
    return finished


def resume_job(
    folder: Path, config: Mapping[str, Any], train: Callable[[str | None], float | None]
) -> float | None:
    """Call `train` with the folder's last checkpoint, if any; return the score, a finished job's
    at once.

    What `train` raises is recorded and raised again. Raises UserError if another process runs
    the job, or its config changed.
    """
    with lock_folder(folder):
        if is_finished(folder, config):
            log.info("finished before: %s", folder)
            return read_status(folder)["score"]
        return _run_and_record(folder, config, train)


def _run_and_record(
    folder: Path, config: Mapping[str, Any], train: Callable[[str | None], float | None]
) -> float | None:
    start = time.time()

    def write_status(status: str, **result: Any) -> None:
        content = {"status": status, "host": platform.node(), "process": os.getpid()}
        content |= {"started": round(start), "seconds": round(time.time() - start, 1), **result}
        text = json.dumps(content | {"config": config}, indent=1) + "\n"
        atomic_write_text(folder / "status.json", text)

    write_status("running")
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
            write_status("interrupted" if stopped else "failed", error=reason)
        _clear_frames(error)
        raise
    finally:
        gc.collect()
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish()
    (folder / "traceback.txt").unlink(missing_ok=True)  # of an attempt before
    write_status("finished", score=score)
    return score


def _clear_frames(error: BaseException | None) -> None:
    """Empty the frames of an error, which hold the model and its data: Hydra keeps the error."""
    cleared = set()  # `raise cause from None` makes a circle of an error and its cause
    while error and id(error) not in cleared:
        cleared.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
