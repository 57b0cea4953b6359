"""The config of a run that goes on: the checkpoint's, but for what is typed now.

The checkpoint may be a stranger's: its config is checked as a config file is, resolves nothing, and
names no path to write to and no logger.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from captioning import UserError
from captioning.config.compose import GLOBAL_GROUPS
from captioning.config.schema import locate
from captioning.config.trust import WRITTEN, leaves

STAGES = {"data": "data", "encoder": "features", "datamodule": "features", "training": "training"}
NOT_TAKEN = {"run_dir", "ckpt_path", "logger", "hydra", "mode"}  # mode: of earlier releases


def typed_keys(overrides: Sequence[str]) -> set[str]:
    """Return the keys that overrides set, with those in the file of an experiment or a sweep."""
    repository = GlobalHydra.instance().config_loader().repository
    parsed = OverridesParser.create().parse_overrides(overrides)
    keys, chosen = set(), [(each.key_or_group, each.value()) for each in parsed]
    while chosen:
        key, choice = chosen.pop()
        keys.add(key)
        if key in GLOBAL_GROUPS and (file := repository.load_config(f"{key}/{choice}")):
            groups = [each for each in file.defaults_list if hasattr(each, "group")]
            chosen += [(each.group.lstrip("/"), each.value) for each in groups]
            keys |= {path for path, _ in leaves(OmegaConf.to_container(file.config))}
    return keys


def resumed_config(cfg: DictConfig, stored: Mapping[str, Any], typed: set[str]) -> None:
    """Put a checkpoint's config into a composed one, except for the `typed` keys.

    Groups that are newer than the checkpoint stay. Raises UserError for what it may not name.
    """
    stored = {"init": None} | {key: stored[key] for key in stored if key not in NOT_TAKEN}
    for path, value in leaves(stored):
        is_logger = path.endswith("_target_") and "loggers" in str(value)
        if path not in typed and (is_logger or "${" in str(value)):
            raise UserError(f"{path}={value}: a checkpoint may not say that; type {path}=…")
    for key, stage in STAGES.items():
        if isinstance(node := stored.get(key), Mapping):
            locate(node.get("_target_"), stage)
    today = OmegaConf.to_container(cfg)
    with open_dict(cfg):
        for key, value in stored.items():
            cfg[key] = _resume(key, today.get(key), value, typed, stored)


def resumed_choices(choices: DictConfig, folder: Path, typed: set[str]) -> None:
    """Put the choices of groups that the run in `folder` recorded into Hydra's record of today's.

    None stands for what is not known, as of a checkpoint that was taken out of its folder.
    """
    recorded: Any = {}
    with suppress(Exception):  # a foreign file can raise anything
        hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml")
        recorded = OmegaConf.to_container(hydra.hydra.runtime.choices)
    with read_write(choices):
        for group in choices:
            if "/" not in group and group not in typed:
                choices[group] = recorded.get(group)


def _resume(path: str, today: Any, stored: Any, typed: set[str], whole: Mapping[str, Any]) -> Any:
    is_node, in_callback = isinstance(stored, Mapping), path.startswith("callbacks.")
    name = path.rpartition(".")[2]
    if path in typed or (not is_node and _has_typed(path, typed)):
        return today
    if name in WRITTEN and name != "features_root":
        return today or (None if name == "filename" else "${run_dir}")
    if in_callback and isinstance(today, str) and _resolve(today, whole, stored) == stored:
        return today  # it follows another key, which may be typed
    if not is_node:
        return stored
    today = today if isinstance(today, Mapping) else {}
    if in_callback and today and today.get("_target_") != stored.get("_target_"):
        return today  # the callback of an earlier release
    below = {key: f"{path}.{key}" for key in [*today, *stored]}
    return {
        key: _resume(where, today.get(key), stored[key], typed, whole)
        if key in stored
        else today[key]
        for key, where in below.items()
        if key in stored or where in typed or _has_typed(where, typed)
    }


def _has_typed(path: str, typed: set[str]) -> bool:
    return any(key.startswith(f"{path}.") for key in typed)


def _resolve(text: str, whole: Mapping[str, Any], default: Any) -> Any:
    """Return what a value with ${…} was in the checkpoint's whole config."""
    try:
        return OmegaConf.to_container(OmegaConf.create({**whole, "_": [text]})._, resolve=True)[0]
    except OmegaConfBaseException:  # of a key that is newer
        return default
