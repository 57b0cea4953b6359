"""Read the config of a command: Hydra's loader, which takes known keys only, checked by trust.py.

Importing changes nothing in the process, and a command leaves it as it was.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from captioning import UserError
from captioning.config.schema import locate
from captioning.config.trust import (
    RefusedError,
    check_hydra,
    check_search_path,
    error_text,
    read_variable,
)

# Beside the package in a checkout, inside it in a wheel.
CONF = next(
    folder
    for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")
    if folder.is_dir()
)
GLOBAL_GROUPS = ("experiment", "sweep")  # their files set keys of other groups
UNCHECKED_NODES = (  # whose keys Hydra's plug-ins, logging, a search, Lightning check themselves
    *("hydra.launcher", "hydra.sweeper", "hydra.callbacks", "hydra.runtime", "hydra.overrides"),
    *("hydra.job_logging", "hydra.hydra_logging", "hydra.job.env_set", "tune.space"),
    *("trainer.max_time", "trainer.val_check_interval"),
)
FREE_NAME_NODES = ("callbacks.", "logger.")  # hold any number of objects, each under any name
SIMILARITY = 0.75  # of difflib, for a misspelt key


@contextmanager
def checked_configs() -> Iterator[None]:
    """Check every config that Hydra composes before Hydra acts on it, in this process and its jobs.

    A decorator of each command's main(), above hydra.main.
    """
    before = hydra._internal.hydra.ConfigLoaderImpl
    hydra._internal.hydra.ConfigLoaderImpl = CheckedLoader
    restrict_environment()
    try:
        yield
    finally:
        hydra._internal.hydra.ConfigLoaderImpl = before
        if before is not CheckedLoader:
            OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def restrict_environment() -> None:
    """Let ${oc.env:NAME} read what may go into a checkpoint, and no more."""
    OmegaConf.register_new_resolver("oc.env", read_variable, replace=True)


class CheckedLoader(ConfigLoaderImpl):
    """Hydra's config loader that refuses unsafe configs and unknown keys; launchers pickle it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restrict the process of a job as the command's."""
        self.__dict__.update(state)
        restrict_environment()

    def load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, **options: bool
    ) -> DictConfig:
        """Compose and check a config. Raises RefusedError, whose text is fit to be printed."""
        try:
            # A group has its place in the defaults list: + would choose a second one.
            group_exists = self.repository.group_exists
            typed = [each.lstrip("+") if group_exists(key_of(each)) else each for each in overrides]
            if config_name is not None:
                check_search_path(self.repository.load_config(config_name), typed)
            try:
                cfg = super().load_configuration(config_name, typed, run_mode, **options)
            except ConfigCompositionException as error:
                missing = re.search(r"\nTo append to your (.+) use \+(.+)", str(error))
                if not missing:
                    raise
                if missing[1] == "default list":
                    group = key_of(missing[2])
                    raise UserError(f"there is no {group} to choose here: leave it out") from None
                # With ++, as one job of a sweep may have that key and another may not.
                typed = [f"++{each}" if each == missing[2] else each for each in typed]
                return self.load_configuration(config_name, typed, run_mode, **options)
            check_hydra(cfg, typed)
            if run_mode == RunMode.RUN:  # of a multirun, each job, before any of them starts
                self.check_keys(cfg, config_name, typed)
        except HydraException:
            raise  # a sentence already
        except Exception as error:  # nonsense in an override ends in many ways
            raise RefusedError(f"error: {error_text(error)}") from None
        return cfg

    def check_keys(self, cfg: DictConfig, config_name: str | None, typed: Sequence[str]) -> None:
        """Raise UserError for a key that nothing reads, with the closest that something does.

        Known are the keys of the config that the chosen groups make; what the command line, an
        experiment or a sweep adds must be an argument of what its node names by `_target_`.
        """
        choices = cfg.hydra.runtime.choices
        adds = any(each.startswith("+") for each in typed)
        if not adds and not any(map(choices.get, GLOBAL_GROUPS)):
            return
        groups = {group: choice for group, choice in choices.items() if "/" not in group}
        options = [each for each in typed if each.startswith("hydra.searchpath=")]
        options += [
            f"{group}={choice}"
            for group, choice in groups.items()
            if choice and group not in GLOBAL_GROUPS
        ]
        unchanged = super().load_configuration(config_name, options, RunMode.RUN)
        known = dict(_nodes(groups | OmegaConf.to_container(unchanged)))
        for path, node in _nodes(OmegaConf.to_container(cfg)):
            if "_target_" in node and cfg.get("ckpt_path"):  # whose config has other targets
                continue
            for key in node:
                if key in known.get(path, ()) or key in self.arguments(path, node):
                    continue
                if path + key == "mode":  # of earlier releases
                    raise UserError(f"mode={node[key]}: mode follows from monitor; leave it out")
                close = self.closest(path, node, key, known)
                hint = f"did you mean {close}?" if close else "--help lists the keys"
                if close == path + key:  # a group, whose file says in which package it is
                    hint = f"a file in {key}/ begins with # @package _global_"
                raise UserError(f"there is no key {path}{key}; {hint}")

    def arguments(self, path: str, node: Mapping[str, Any]) -> set[str]:
        """Return the keys that something reads in a node, with those that its YAML leaves out."""
        if path in FREE_NAME_NODES:
            return {key for key, value in node.items() if "_target_" in (value or ())}
        if path == "trainer.":
            from pytorch_lightning import Trainer as target
        elif "_target_" in node:
            target = locate(node["_target_"])
        else:
            return set()
        parameters = inspect.signature(target).parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        return {"_target_", "_partial_", "_recursive_", *parameters, *(node if takes_any else ())}

    def closest(
        self, path: str, node: Mapping[str, Any], key: str, known: Mapping[str, Mapping]
    ) -> str:
        """Return the known key most like one that nothing reads, "" for none.

        In its own node, else among the keys of the config, else among all arguments.
        """
        own = sorted({*known.get(path, ()), *self.arguments(path, node)})
        if matches := difflib.get_close_matches(key, own, 1, SIMILARITY):
            return path + matches[0]
        places = [place for place in known if not place.startswith("hydra.")]
        # The likeliest first.
        places.sort(key=lambda place: (place in FREE_NAME_NODES, place.count(".")))
        for names_of in (known.get, lambda place: self.arguments(place, known[place])):
            paths = {name: place + name for place in reversed(places) for name in names_of(place)}
            if matches := difflib.get_close_matches(key, paths, 1, SIMILARITY):
                return paths[matches[0]]
        return ""


def resolve_config(cfg: DictConfig) -> dict[Any, Any]:
    """Return the resolved config as plain Python types, as checkpoints hold it.

    Raises UserError for a value that is missing or cannot be resolved.
    """
    try:
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            key = cfg._get_full_key(missing[0])
            raise UserError(f"{key} is missing; type {key}=…")
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(error_text(error)) from None


def is_sweep_job() -> bool:
    """Tell whether this process runs a job of a Hydra multirun."""
    config = HydraConfig.get()
    return config.mode == RunMode.MULTIRUN or not OmegaConf.is_missing(config.job, "num")


def key_of(override: str) -> str:
    """Return the key that a command-line override sets."""
    return override.lstrip("+~").partition("=")[0]


def _nodes(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each checked node with its path: `model.`, or "" for the whole config.

    An argument that is a mapping without `_target_` is not looked into.
    """
    yield path, node
    for key, value in node.items():
        is_node = isinstance(value, Mapping) and ("_target_" in value or "_target_" not in node)
        if is_node and path + key not in UNCHECKED_NODES:
            yield from _nodes(value, f"{path}{key}.")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line `key: old → new` for each key, with dots, whose value differs."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {_shown(before)} → {_shown(after)}")
    return lines


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
