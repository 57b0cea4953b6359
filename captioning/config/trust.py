"""Refuse what a config file may not do: run code, write elsewhere, read the environment.

Hydra's own nodes are checked before Hydra acts on them. A person allows more by what is typed, or
with CAPTIONING_TRUST, which no file can set (SECURITY.md).
"""

from __future__ import annotations

import copy
import os
import shlex
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
from captioning.config.cli import hydra_value

# Packages, folders and variables of the environment, with commas. Read on import, before a file's
# hydra.job.env_set is.
TRUSTED = frozenset(filter(None, os.environ.get("CAPTIONING_TRUST", "").split(",")))
READABLE = {"FLICKR8K"} | TRUSTED  # variables that ${oc.env:…} may put into a config and so a run
TYPED_ONLY = (  # keys of Hydra that end in a shell, an interpreter, or another machine
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
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.submitit_folder")
NAMES = ("hydra.output_subdir", "hydra.job.name")  # within those folders
WRITTEN = ("run_dir", "features_root", "folder", "dirpath", "save_dir", "filename")
HYDRA_CALLBACK = "captioning.training.folder_lock.ClaimFolder"  # the only one in conf/
LOG_HANDLERS = {f"logging.{name}" for name in ("StreamHandler", "FileHandler", "NullHandler")}
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


class RefusedError(UserError, ConfigCompositionException):
    """An error that Hydra prints without a traceback, with exit code 1."""


def check_search_path(primary: ConfigResult | None, overrides: Sequence[str]) -> None:
    """Raise UserError if the main file adds places for configs: pkg://NAME imports NAME.

    Hydra takes that key from the main file only, and acts on it while it composes.
    """
    added = primary and OmegaConf.select(primary.config, "hydra.searchpath")
    if added and not any(each.lstrip("+").startswith("hydra.searchpath=[") for each in overrides):
        raise UserError(
            "hydra.searchpath in a config file could run code; type it on the command line"
        )


def check_hydra(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise UserError if `cfg.hydra` has what only a person may say, by typed `overrides`."""
    typed = [override.lstrip("+~") for override in overrides]
    for key in TYPED_ONLY:
        if OmegaConf.select(cfg, key) and not any(each.startswith(key) for each in typed):
            raise UserError(f"{key} in a config file could run code; type it on the command line")
    for key in OmegaConf.select(cfg, "hydra.sweeper.params") or ():
        if key.lstrip("+~").startswith("hydra"):
            raise UserError(f"a sweep in a config file cannot vary {key}; type it")
    for key in ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging"):
        node = OmegaConf.to_container(cfg.hydra[key]) if cfg.hydra.get(key) else {}
        _check_plugin(node, f"hydra.{key}")
    in_sweep = cfg.hydra.mode == RunMode.MULTIRUN  # or in a job of one
    with _hydra_resolvable(cfg) as cfg:
        if "latest" in Path(str(OmegaConf.select(cfg, "name"))).parts:
            raise UserError("name=latest: that leads to the newest run; type another name")
        for key in (*NAMES, "hydra.sweep.subdir") if in_sweep else NAMES:
            name = str(OmegaConf.select(cfg, key, throw_on_missing=False) or "")
            if name.startswith("/") or ".." in Path(name).parts:
                raise UserError(f"{key}={name} leads out of its folder; type a plain name")
        for key in FOLDERS:
            if OmegaConf.select(cfg, key, throw_on_missing=False):
                check_folder(key, str(OmegaConf.select(cfg, key)), _typed_folders(overrides))


def check_write_paths(config: Mapping[str, Any]) -> None:
    """Raise UserError if a resolved config would write outside the folders that it may."""
    hydra = HydraConfig.get().overrides if HydraConfig.initialized() else None
    typed = _typed_folders([*hydra.task, *hydra.hydra]) if hydra else []
    for path, value in leaves(config):
        if path.rpartition(".")[2] in WRITTEN and isinstance(value, str):
            check_folder(path, value, typed)
    data = config.get("data") or {}
    if str(data.get("_target_")).endswith(".Scenes"):  # the one source that writes
        check_folder("data.root", str(data.get("root")), typed)


def check_folder(key: str, path: str, allowed: Sequence[str] = ()) -> None:
    """Raise UserError for a path outside the working folder, trusted and `allowed` folders."""
    trusted = [*allowed, *(each for each in TRUSTED if "/" in each)]
    folder = _absolute(path)
    if not any(folder.is_relative_to(each) for each in [Path.cwd(), *map(_absolute, trusted)]):
        raise UserError(
            f"{key}={path} lies outside the working folder, where no config file may write; type "
            f"{shlex.quote(f'{key}={path}')}, or start with "
            f"CAPTIONING_TRUST={shlex.quote(f'{folder.parent}/')} if you mean it"
        )


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


def error_text(error: Exception) -> str:
    """Return an error's text without what OmegaConf adds of the place in the config."""
    text = str(error).partition("\n    full_key: ")[0] or type(error).__name__
    return text.removeprefix("UserError raised while resolving interpolation: ")


def _typed_folders(overrides: Sequence[str]) -> list[str]:
    """Return the folders that a person's own overrides name to write into."""
    ends = (*WRITTEN, ".dir", "data.root")
    typed = [each for each in overrides if each.partition("=")[0].endswith(ends)]
    return [str(hydra_value(override)) for override in typed]


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _check_plugin(node: Any, where: str) -> None:
    """Raise UserError if a node makes more than Hydra's own plug-in, or a plain log."""
    is_logging = "logging" in where
    for path, value in leaves(node):
        key, text = path.rpartition(".")[2], str(value)
        # Of launcher and sweeper Hydra takes none but its registered plug-ins.
        if text == HYDRA_CALLBACK or (path == "_target_" and where != "hydra.callbacks"):
            continue
        if key == "_target_" or (is_logging and _imports_code(key, text)):
            raise UserError(
                f"{where}.{path}={text} could run code; it is not allowed in a config file"
            )
        if is_logging and key == "filename":
            name = text.replace("${hydra.runtime.output_dir}", ".")
            name = name.replace("${hydra.job.name}", "")
            check_folder(f"{where}.{path}", "/" if "${" in name else name)


def _imports_code(key: str, text: str) -> bool:
    """Tell whether logging.config would import or call something for this."""
    if key == "()" or (key == "class" and text not in LOG_HANDLERS):
        return True
    return text.startswith(("ext://", "cfg://")) and text not in STREAMS


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys, with dots, and the values of nested mappings and lists."""
    if not isinstance(node, Mapping | list):
        yield path, node
        return
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, value in pairs:
        yield from leaves(value, f"{path}.{key}" if path else str(key))


@contextmanager
def _hydra_resolvable(cfg: DictConfig) -> Iterator[DictConfig]:
    """Yield a copy in which ${hydra:…} resolves as it will in the first job that Hydra runs."""
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
