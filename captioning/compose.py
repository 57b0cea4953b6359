"""Compose the config of a command: Hydra's loader, which takes known keys only and asks guard.py.

Nothing of this process changes before a command starts, and nothing after it has ended.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from captioning.data.records import UserError
from captioning.guard import RefusedError, check_hydra, check_search_path, read_variable, sentence
from captioning.targets import locate

EXTRA = ("experiment", "sweep")  # groups whose files say values of keys that others have
NAMED = ("callbacks.", "logger.")  # hold as many objects as there are, each under any name
STORED = ("data.", "text_encoder.")  # without a _target_: any choice's, as a checkpoint will say
# What plug-ins and logging read of Hydra's keys, and what Hydra itself notes there.
OPEN = ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging", "runtime", "overrides")
SIMILAR = 0.75  # of difflib, for a misspelt key
SPECIAL = ("_target_", "_partial_", "_recursive_")


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
    """Hydra's loader of configs, which launchers pickle for the processes of their jobs."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in the process of a job, which is as restricted as the command's."""
        self.__dict__.update(state)
        restrict_environment()

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose and check a config. Raises RefusedError, whose text is fit to be printed."""
        options = (run_mode, from_shell, validate_sweep_overrides)
        try:
            if config_name is not None:
                check_search_path(self.repository.load_config(config_name), overrides)
            try:
                cfg = super().load_configuration(config_name, overrides, *options)
            except ConfigCompositionException as error:
                if (better := self.mended(error, overrides)) == overrides:
                    raise
                return self.load_configuration(config_name, better, *options)
            check_hydra(cfg, overrides)
            if run_mode == RunMode.RUN:  # of a multirun, each job, before any of them starts
                self.check_keys(cfg, config_name, overrides)
        except HydraException:
            raise  # a sentence already
        except Exception as error:  # nonsense in an override ends in many ways
            raise RefusedError(f"error: {sentence(error)}") from None
        return cfg

    def mended(self, error: Exception, typed: list[str]) -> list[str]:
        """Return the overrides with the + that Hydra misses or minds in one of them."""
        text = str(error)
        if missing := re.search(r"\nTo append to your (config|default list) use \+(.+)", text):
            # A key with ++, as one job of a sweep may have it and another may not.
            more = "++" if missing[1] == "config" else "+"
            return [more + one if one == missing[2] else one for one in typed]
        chosen = re.match(r"Multiple values for (\w+)\.|(\w+) appears more than once", text)
        group = chosen and f"+{chosen[1] or chosen[2]}="
        return [one[1:] if group and one.startswith(group) else one for one in typed]

    def check_keys(self, cfg: DictConfig, config_name: str | None, typed: Sequence[str]) -> None:
        """Raise UserError for a key that nothing reads, with the closest that something does.

        Known are the keys of the config that the chosen groups make; what the command line, an
        experiment or a sweep adds must be an argument of what a node names.
        """
        choices = cfg.hydra.runtime.choices
        added = [one.lstrip("+") for one in typed if one.startswith("+")]
        if not added and not any(choices.get(group) for group in EXTRA):
            return
        options = [one for one in typed if one.startswith("hydra.searchpath=")]
        plain = super().load_configuration(config_name, options, RunMode.RUN)
        groups = {key: one for key, one in plain.hydra.runtime.choices.items() if "/" not in key}
        for one in added:
            group = one.partition("=")[0]
            if self.repository.group_exists(group) and group not in groups:
                raise UserError(f"there is no {group} to choose here: leave out {one}")
        chosen = {key: choices.get(key) for key in groups if key not in EXTRA}
        if more := [
            f"{key}={one}" for key, one in chosen.items() if one not in (None, groups[key])
        ]:
            options += more
            plain = super().load_configuration(config_name, options, RunMode.RUN)
        known = {(path, key): value for path, _, key, value in _walk(_container(plain))}
        for path, node, key, value in _walk(_container(cfg)):
            if (path, key) not in known and not self.takes(path, node, key, value):
                close = self.closest(path, node, key, known, groups)
                hint = f"did you mean {close}?" if close else "--help lists the keys"
                raise UserError(f"there is no key {path}{key}; {hint}")

    def takes(self, path: str, node: Mapping[str, Any], key: str, value: Any) -> bool:
        """Say whether something reads a key that the YAML of its node leaves out."""
        if path in NAMED:
            return isinstance(value, Mapping) and "_target_" in value
        if path == "tune.space." or (path and key in SPECIAL) or path + key == "mode":
            return True  # of mode, build.check_config says what became of it
        return any({key, "**"} & arguments for arguments in self.arguments(path, node))

    def arguments(self, path: str, node: Mapping[str, Any]) -> Iterator[set[str]]:
        """Yield the arguments of what a node makes, with ** where it takes any."""
        if path == "trainer.":
            import pytorch_lightning as pl

            targets = [pl.Trainer]
        elif "_target_" in node:
            targets = [locate(node["_target_"])]
        else:
            group = path[:-1]
            names = self.repository.get_group_options(group) if path in STORED else ()
            files = [self.repository.load_config(f"{group}/{name}").config for name in names]
            targets = [locate(file["_target_"]) for file in files]
        for target in targets:
            parameters = inspect.signature(target).parameters.values()
            yield {"**" if one.kind is one.VAR_KEYWORD else one.name for one in parameters}

    def closest(
        self, path: str, node: Mapping[str, Any], key: str, known: Mapping, groups: Iterable[str]
    ) -> str:
        """Return what is most like a key, "" where nothing is.

        In its own node, else among the keys of the config, else among all arguments.
        """
        own = {name for place, name in known if place == path}.union(*self.arguments(path, node))
        own |= set() if path else set(groups)
        if like := difflib.get_close_matches(key, sorted(own), 1, SIMILAR):
            return path + like[0]
        others = {pair: value for pair, value in known.items() if not pair[0].startswith("hydra.")}
        paths = {
            f"{place}{name}": isinstance(one, Mapping) for (place, name), one in others.items()
        }
        for stage in (others, {}):
            ends = [one.rpartition(".")[2] for one in paths]
            if like := difflib.get_close_matches(key, ends, 1, SIMILAR):
                same = [one for one in paths if one.rpartition(".")[2] == like[0]]
                # Rather a value than a mapping, rather a short path.
                return min(same, key=lambda one: (paths[one], one.count(".")))
            for (place, name), one in stage.items():
                if isinstance(one, Mapping):
                    inside = set().union(*self.arguments(f"{place}{name}.", one))
                    paths |= {f"{place}{name}.{argument}": False for argument in inside}
        return ""


def _walk(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping, str, Any]]:
    """Yield each key and its value, with its node and where that is: `model.`, "" at the top.

    What is inside an argument is the business of its class, unless that is made, too.
    """
    for key, value in node.items():
        yield path, node, key, value
        if isinstance(value, Mapping) and ("_target_" in value or "_target_" not in node):
            yield from _walk(value, f"{path}{key}.")


def _container(cfg: DictConfig) -> dict[str, Any]:
    content = OmegaConf.to_container(cfg)
    content["hydra"] = {key: one for key, one in content["hydra"].items() if key not in OPEN}
    del content["hydra"]["job"]["env_set"]
    return content
