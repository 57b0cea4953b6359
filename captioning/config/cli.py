"""The command line, of verbs that Hydra reads and of those it does not.

Arguments enter; what Hydra could not say well is said here, and key=value pairs leave. So is what a
disk refuses. Nothing heavy is imported.
"""

from __future__ import annotations

import difflib
import errno
import glob
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from captioning import UserError

Result = TypeVar("Result")

# What Lightning 2 dropped, and what to type today.
DROPPED = {
    "progress_bar_refresh_rate": "callbacks.progress.refresh_rate",
    "checkpoint_callback": "trainer.enable_checkpointing",
    "weights_summary": "trainer.enable_model_summary",
    "resume_from_checkpoint": "ckpt_path",
    "distributed_backend": "trainer.strategy",
    "accelerator_backend": "trainer.accelerator",
    "num_processes": "trainer.devices",
    "tpu_cores": "trainer.accelerator=tpu trainer.devices",
    "auto_select_gpus": "trainer.devices=auto",
    "flush_logs_every_n_steps": "trainer.log_every_n_steps",
    "terminate_on_nan": "trainer.detect_anomaly",
    "max_nb_epochs": "trainer.max_epochs",
    "nb_gpu_nodes": "trainer.num_nodes",
    "auto_lr_find": "training.learning_rate",
    "auto_scale_batch_size": "datamodule.batch_size",
}


# What Hydra has not itself: the plugin and the extra of each launcher.
LAUNCHERS = {
    "joblib": ("joblib", "joblib"),
    "ray": ("ray", "ray"),
    "submitit_slurm": ("submitit", "slurm"),
    "submitit_local": ("submitit", "slurm"),
}


def check_flags(arguments: list[str]) -> None:
    """Stop at a flag that Lightning 2 dropped, with its new name, before anything is imported.

    And at a launcher whose plugin is not installed, with the extra that has it.
    """
    for argument in arguments:
        launcher = LAUNCHERS.get(re.sub("^(hydra/)?launcher=", "", argument))
        if launcher and not find_spec(f"hydra_plugins.hydra_{launcher[0]}_launcher"):
            sys.exit(f"error: {argument}: type pip install 'captioning[{launcher[1]}]' first")
        # joblib's own number is a job a core, each with all GPUs in sight.
        if launcher == LAUNCHERS["joblib"] and "hydra.launcher.n_jobs" not in " ".join(arguments):
            sys.exit(f"error: {argument}: say how many jobs at once with hydra.launcher.n_jobs=N")
        key = re.match(r"\+*trainer\.(\w+)=", argument)
        if key and key[1] in DROPPED:
            sys.exit(f"error: {argument}: Lightning 2 dropped it; type {DROPPED[key[1]]}=… instead")


def quoted(argument: str) -> str:
    """Return ckpt=PATH so that Hydra takes it as one text: a sweep's folders have = and commas.

    A pattern that finds files is one text, too, and so is each path of a list.
    """
    key, _, path = argument.partition("=")
    if key == "ckpt" and path.startswith("[") and (paths := _listed(path[1:-1])):
        return f"ckpt=[{','.join(map(_text, paths))}]"
    if key not in ("ckpt", "ckpt_path") or not (Path(path).exists() or glob.glob(path)):
        return argument
    return f"{key}={_text(path)}"


def _listed(text: str) -> list[str]:
    """Return the files of a list, [] where one is none: then Hydra reads it as it stands."""
    found, path = [], ""
    for piece in text.split(","):
        path = f"{path},{piece}" if path else piece.strip()
        if Path(path).is_file():
            found.append(path)
            path = ""
    return [] if path else found


def _text(path: str) -> str:
    return "'" + path.replace("'", r"\'") + "'"


def key_values(
    arguments: Sequence[str],
    verb: str,
    required: Sequence[str],
    defaults: Mapping[str, str | None],
    prefixes: tuple[str, ...] = (),
) -> dict[str, str | None]:
    """Read key=value; everything after the first = is the value, whatever it holds.

    Keys that begin with one of `prefixes` are all taken. Raises UserError for another key, and
    where a required one is missing.
    """
    options = dict(defaults)
    known = list(dict.fromkeys([*required, *defaults]))
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not (key in known or key.startswith(prefixes)):
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]}=?" if close else ""
            raise UserError(f"{argument} is not one of {', '.join(f'{k}=' for k in known)}{hint}")
        options[key] = value
    for key in required:
        if not options.get(key):
            raise UserError(f"{key}= is missing; see python -m captioning.{verb} --help")
    return options


@contextmanager
def disk_errors(go_on: str) -> Iterator[None]:
    """Turn what a disk refuses into a UserError; `go_on` is what to type when that is mended."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and error.errno != errno.EIO:
            raise
        named = error.filename2 or error.filename or "a file"
        why = ", the disk or its quota is full: make room" if full else ": mend the disk"
        raise UserError(f"{named}: {error.strerror}{why}; then {go_on} goes on") from error


def run_verb(verb: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Run a verb; what the user can put right becomes a sentence and exit code 1."""
    try:
        with disk_errors("the same command"):
            return verb(cfg)
    except UserError as error:
        # In a sweep Hydra notes the failure and goes on with the next job.
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit("error: " + str(error).removeprefix("error: "))
