"""The command line of train, evaluate, encode and tune, before Hydra reads it.

Paths are quoted for Hydra's grammar, and the bare argument gets its key. Nothing heavy is imported.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise

from captioning.config.cli import find_latest, hydra_value, split_list
from captioning.config.compose import CONF
from captioning.config.trust import WRITTEN

# What is typed for these keys, in whatever node, is a path or part of one, and is taken as it is
# typed, whether or not it is there. Hydra's own remain: ${…}; null; what begins with a quote; of
# ckpt [A,B], a list; in a sweep A,B, choice(…) and the like. All but ${…} are paths where a file
# has that very name, and with ./ before them.
PATHS = {*WRITTEN, "ckpt", "ckpt_path", "init", "root", "weights", "path", "dir", "subdir"}
PATHS |= {"name", "submitit_folder", "storage"}
SWEEP = r"-m|--multirun|hydra\.mode=.*|sweep=.*"
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
    in_sweep = any(re.fullmatch(SWEEP, argument) for argument in arguments)
    for previous, argument in pairwise(["", *arguments]):
        key, equals, _ = argument.partition("=")
        # Such as job, after --cfg.
        is_flag_value = previous.startswith("-") and previous not in ("-m", "--multirun")
        name, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("--") and name not in HYDRA_FLAGS:
            typed = shlex.quote(f"{name}={value}") if value else f"{name}=…"
            sys.exit(f"error: type {typed} instead of {argument}")
        if argument.startswith(("-", "~")) or is_flag_value:
            overrides.append(argument)
        elif equals and ("/" not in key or not bare or key.startswith(("hydra/", "+hydra/"))):
            overrides.append(quote_path(argument, in_sweep))
        elif bare:
            paths.append(quote(find_latest(bare, argument)))
        else:
            sys.exit(f"error: {argument}: type key=value; --help lists the keys")
    joined = ",".join(paths)
    if paths:
        overrides.append(f"{bare}={joined}" if len(paths) == 1 else f"{bare}=[{joined}]")
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


def quote_path(argument: str, in_sweep: bool = False) -> str:
    """Return key=PATH so that Hydra reads PATH as it is typed, and other arguments as they are."""
    key, _, text = argument.partition("=")
    name = re.split(r"[+.]", key)[-1]
    hydras = r"""\[?['"].*""" + r"|(choice|glob|shuffle|sort)\(.*\)|\[.*\]" * in_sweep
    is_hydras = re.fullmatch(hydras, text, re.DOTALL) and hydra_value(argument) is not None
    is_file = os.path.exists(text)
    if name not in PATHS or ((is_hydras or text.lower() == "null") and not is_file):
        return argument
    if is_file or not (in_sweep or (name == "ckpt" and re.fullmatch(r"\[.*\]", text))):
        return f"{key}={quote(find_latest(name, text))}"
    items = split_list(f"[{text}]" if in_sweep else text)
    joined = ",".join(x if x == "null" else quote(find_latest(name, x)) for x in items)
    return f"{key}={joined}" if in_sweep else f"{key}=[{joined}]"


def as_typed(override: str) -> str:
    """Return an override as a person types it: what `quote_path` quoted, without the quotes."""
    if "'" not in override:
        return override
    typed = f"{override.partition('=')[0]}={hydra_value(override)}"
    return typed if quote_path(typed) == override else override


def quote(text: str) -> str:
    """Return text so that Hydra's grammar reads it as it is: in quotes, where it needs them."""
    if "\\" not in text and hydra_value(f"key={text}") == text:
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + match[2], text)
    return "'" + escaped.replace("'", r"\'") + "'"


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
