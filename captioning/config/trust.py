"""What a config file may not do, whoever wrote it: run code, write elsewhere, read the environment.

Hydra composes a config; it is refused before Hydra acts on it. A person allows more by what is
typed, or with CAPTIONING_TRUST, which no file can set. Next: targets.py.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from captioning import UserError

# Packages, folders and variables of the environment, with commas. Read at once: hydra.job.env_set,
# which a file can write, comes later.
TRUSTED = frozenset(filter(None, os.environ.get("CAPTIONING_TRUST", "").split(",")))
READABLE = {"FLICKR8K"} | TRUSTED  # variables that ${oc.env:…} may put into a config and so a run
TYPED = (  # keys of Hydra that end in a shell, an interpreter, or another machine
    "hydra.job.env_set",
    "hydra.job.env_copy",
    "hydra.launcher.setup",
    "hydra.launcher.python",
    "hydra.launcher.srun_args",
    "hydra.launcher.additional_parameters",
    "hydra.launcher.ray.init.address",
    "hydra.launcher.ray.init.runtime_env",
    "hydra.launcher.ray.remote.runtime_env",
)
PLACES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.submitit_folder")
NAMES = ("hydra.output_subdir", "hydra.job.name")  # within those places
WRITTEN = ("run_dir", "features_root", "folder", "dirpath", "save_dir", "filename")
OWN = "captioning.training.folder_lock.ClaimFolder"  # the one callback of Hydra in conf/
LOGGING = {f"logging.{name}" for name in ("StreamHandler", "FileHandler", "NullHandler")}
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


class RefusedError(UserError, ConfigCompositionException):
    """What Hydra prints without a traceback, and exits with 1."""


def check_search_path(primary: ConfigResult | None, typed: Sequence[str]) -> None:
    """Raise UserError where the main file adds places for configs: pkg://NAME imports NAME.

    Hydra takes that key from the main file only, and acts on it while it composes.
    """
    said = primary and OmegaConf.select(primary.config, "hydra.searchpath")
    if said and not any(one.lstrip("+").startswith("hydra.searchpath=[") for one in typed):
        raise UserError(
            "hydra.searchpath in a config file could run code; type it on the command line"
        )


def check_hydra(cfg: DictConfig, typed: Sequence[str]) -> None:
    """Raise UserError where `cfg.hydra` says what only a person may, by the overrides `typed`."""
    said = [one.lstrip("+~").partition("=") for one in typed]
    for key in TYPED:
        if OmegaConf.select(cfg, key) and not any(one[0].startswith(key) for one in said):
            raise UserError(f"{key} in a config file could run code; type it on the command line")
    for key in OmegaConf.select(cfg, "hydra.sweeper.params") or ():
        if key.lstrip("+~").startswith("hydra"):
            raise UserError(f"a sweep in a config file cannot vary {key}; type it")
    for key in ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging"):
        node = OmegaConf.to_container(cfg.hydra[key]) if cfg.hydra.get(key) else {}
        _check_plain(node, f"hydra.{key}", "logging" in key)
    in_sweep = cfg.hydra.mode == RunMode.MULTIRUN  # or in a job of one
    with _as_hydra_sees(cfg) as cfg:
        for key in (*NAMES, "hydra.sweep.subdir") if in_sweep else NAMES:
            name = str(OmegaConf.select(cfg, key, throw_on_missing=False) or "")
            if name.startswith("/") or ".." in Path(name).parts:
                raise UserError(f"{key}={name} leads out of its folder; it is a name")
        for key in PLACES:
            if OmegaConf.select(cfg, key, throw_on_missing=False):
                check_place(key, str(OmegaConf.select(cfg, key)), _places(typed))


def check_places(cfg: Mapping[str, Any]) -> None:
    """Raise UserError where a resolved config would write outside the folders that it may."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    places = _places([*hydra.overrides.task, *hydra.overrides.hydra]) if hydra else []
    for path, value in _leaves(cfg):
        key = path.rpartition(".")[2]
        if key in WRITTEN and isinstance(value, str):
            check_place(path, value, places)
    data = cfg.get("data") or {}
    if str(data.get("_target_")).endswith(".Scenes"):  # the one source that writes
        check_place("data.root", str(data.get("root")), places)


def check_place(key: str, path: str, more: Sequence[str] = ()) -> None:
    """Raise UserError for a path outside the working folder, what is trusted, and `more`."""
    allowed = [Path.cwd(), *(_absolute(one) for one in (*more, *TRUSTED) if "/" in one)]
    place = _absolute(path)
    if not any(place.is_relative_to(one) for one in allowed):
        raise UserError(
            f"{key}={path} lies outside the working folder, where no config file may write; type "
            f"{key}={path}, or start with CAPTIONING_TRUST={place.parent}/ if you mean it"
        )


def sentence(error: Exception) -> str:
    """Return an error without where in the config OmegaConf met it."""
    text = str(error).partition("\n    full_key: ")[0] or type(error).__name__
    return text.removeprefix("UserError raised while resolving interpolation: ")


def _places(typed: Sequence[str]) -> list[str]:
    """Return where a person's own overrides say to write."""
    said = [one.partition("=") for one in typed]
    ends = (*WRITTEN, ".dir", "data.root")
    return [value.strip("'\"") for key, _, value in said if key.endswith(ends)]


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _check_plain(node: Any, where: str, logs: bool) -> None:
    """Raise UserError where a node makes more than Hydra's own plug-in, or a plain log."""
    for path, value in _leaves(node):
        key = path.rpartition(".")[2]
        text = str(value)
        # Of launcher and sweeper Hydra takes none but its registered plug-ins.
        if text == OWN or (path == "_target_" and where != "hydra.callbacks"):
            continue
        if key == "_target_" or (logs and _is_foreign(key, text)):
            raise UserError(f"{where}.{path}={text} could run code; no config file may say it")
        if logs and key == "filename":
            inside = text.replace("${hydra.runtime.output_dir}", ".").replace(
                "${hydra.job.name}", ""
            )
            check_place(f"{where}.{path}", "/" if "${" in inside else inside)


def _is_foreign(key: str, text: str) -> bool:
    """Tell whether logging.config would import or call something for this."""
    return (
        key == "()"
        or (key == "class" and text not in LOGGING)
        or (text.startswith(("ext://", "cfg://")) and text not in STREAMS)
    )


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys, with dots, and the values of nested mappings and lists."""
    if not isinstance(node, Mapping | list):
        yield path, node
        return
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, value in pairs:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


@contextmanager
def _as_hydra_sees(cfg: DictConfig) -> Iterator[DictConfig]:
    """Yield a copy in which ${hydra:…} can be resolved, as once Hydra runs the job, its first."""
    config = HydraConfig.instance()
    before, cfg = config.cfg, copy.deepcopy(cfg)
    with read_write(cfg.hydra):
        for key in ("num", "id"):
            if OmegaConf.is_missing(cfg.hydra.job, key):
                cfg.hydra.job[key] = "0"
    config.set_config(cfg)
    try:
        yield cfg
    finally:
        config.cfg = before


def read_variable(name: str, default: Any = UserError) -> Any:
    """Resolve ${oc.env:NAME,default} for names that may go into a checkpoint, and no others."""
    if name not in READABLE:
        raise UserError(
            f"a config file asks for the variable {name}, which a run would store; start with "
            f"CAPTIONING_TRUST={name} if it may"
        )
    if default is UserError and name not in os.environ:
        raise UserError(f"the variable {name}, which a config file asks for, is not set")
    return os.environ.get(name, default)
