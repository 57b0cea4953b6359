"""The command line of train, evaluate, encode and tune, before Hydra reads it.

Paths are quoted for Hydra's grammar, and the bare argument gets its key. Nothing heavy is imported.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from captioning.config.cli import split_paths
from captioning.config.compose import CONF

DROPPED = {  # arguments of Lightning 1's Trainer, and what to type today
    "progress_bar_refresh_rate": "callbacks.progress.refresh_rate",
    "checkpoint_callback": "trainer.enable_checkpointing",
    "weights_summary": "trainer.enable_model_summary",
    "resume_from_checkpoint": "ckpt_path",
    "distributed_backend": "trainer.strategy",
    "auto_lr_find": "training.learning_rate",
}
HYDRA_FLAGS = ("version", "cfg", "resolve", "package", "run", "multirun", "info", "hydra-help")
HYDRA_FLAGS += ("shell-completion", "config-path", "config-name", "config-dir")
# The extra of each launcher that Hydra does not bring.
LAUNCHERS = {"joblib": "joblib", "ray": "ray", "submitit_slurm": "slurm", "submitit_local": "slurm"}


def hydra_arguments(arguments: Sequence[str], config: str, bare: str = "") -> list[str]:
    """Return what was typed as Hydra should read it; `bare` is the key of what has none.

    Prints the help of conf/CONFIG.yaml and exits for --help. Exits with a sentence for what has
    another spelling now, and for what is no key=value.
    """
    if {"-h", "--help"} & set(arguments):
        print(hydra_help(config))
        sys.exit(0)
    check_flags(arguments)
    overrides, paths = [], []
    for previous, argument in pairwise(["", *arguments]):
        key, equals, _ = argument.partition("=")
        # Such as job, after --cfg.
        is_flag_value = previous.startswith("-") and previous not in ("-m", "--multirun")
        name, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("--") and name not in HYDRA_FLAGS:
            sys.exit(f"error: type {name}={value or '…'} instead of {argument}")
        if argument.startswith(("-", "~")) or is_flag_value:
            overrides.append(argument)
        elif equals and not ("/" in key and _names_files(argument)):
            overrides.append(quote_path(argument))
        elif bare:
            paths.append(argument)
        else:
            sys.exit(f"error: {argument}: type key=value; --help lists the keys")
    if len(paths) > 1:
        overrides.append(f"{bare}={quote_all(paths)}")
    elif paths:
        overrides.append(f"{bare}={quote(paths[0])}")
    return overrides


def check_flags(arguments: Sequence[str]) -> None:
    """Exit with what to type instead of a dropped spelling, or before a launcher is there."""
    for argument in arguments:
        launcher = re.sub("^(hydra/)?launcher=", "", argument)
        extra = LAUNCHERS.get(launcher)
        if extra and not find_spec(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"):
            sys.exit(f"error: {argument}: type pip install 'captioning[{extra}]' first")
        # joblib's own number is a job per core, each with all GPUs in sight.
        if launcher == "joblib" and "hydra.launcher.n_jobs" not in " ".join(arguments):
            sys.exit(f"error: {argument}: say how many jobs at once with hydra.launcher.n_jobs=N")
        key = re.match(r"\+*trainer\.(\w+)=", argument)
        if key and key[1] in DROPPED:
            sys.exit(f"error: {argument}: Lightning 2 dropped it; type {DROPPED[key[1]]}=… instead")
        if argument == "search=neighbours":
            sys.exit(f"error: type search.width=50 rerank=neighbours instead of {argument}")


def quote_path(argument: str) -> str:
    """Return ckpt=PATH so that Hydra reads one text: a sweep's folders have = and commas.

    So is a pattern that finds files, and each path of a list.
    """
    key, _, path = argument.partition("=")
    if key not in ("ckpt", "ckpt_path", "data.root"):
        return argument
    if path.startswith("[") and (paths := split_paths(path[1:-1])):
        return f"{key}={quote_all(paths)}"
    if not _names_files(path) or _hydra_value(argument) == path:
        return argument
    return f"{key}={quote(path)}"


def _names_files(path: str) -> bool:
    return os.path.exists(path) or bool(glob.glob(path))


def _hydra_value(argument: str) -> Any:
    try:
        return OverridesParser.create().parse_override(argument).value()
    except HydraException:
        return None


def quote(path: str) -> str:
    """Return text as a quoted value of Hydra's grammar."""
    escaped = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + match[2], path)
    return "'" + escaped.replace("'", r"\'") + "'"


def quote_all(paths: Sequence[str]) -> str:
    """Return texts as a list of Hydra's grammar."""
    return f"[{','.join(map(quote, paths))}]"


def hydra_help(config: str) -> str:
    """Return what conf/CONFIG.yaml says of itself, its keys, and the choices of its groups."""
    text = _read(config)
    head, _, keys = text.partition("defaults:")
    keys = re.sub(r"^  - .*\n", "", keys, flags=re.MULTILINE)
    lines = [re.sub("^# ?", "", head, flags=re.MULTILINE), "Keys, with their defaults:", ""]
    lines += [keys.strip(), "", "Groups of keys, with their choices:", ""]
    extended = _read("config") if "  - config\n" in text else ""
    for group, default in re.findall(r"^  - (\w+): (\w+)", extended + text, re.MULTILINE):
        choices = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        lines.append(f"  {f'{group}={default}':28}  {', '.join(choices)}")
    return "\n".join([*lines, "", "--cfg job prints every key of the chosen groups, too."])


def _read(config: str) -> str:
    """Return the text of conf/CONFIG.yaml without what is Hydra's own."""
    return (CONF / f"{config}.yaml").read_text(encoding="utf-8").partition("\nhydra:")[0]
