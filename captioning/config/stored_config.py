"""The config of a run that goes on: the checkpoint's, but for what is typed now.

The checkpoint may be a stranger's: its config is checked as a config file is, resolves nothing, and
names no path to write to and no logger.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from captioning import UserError
from captioning.config.schema import locate
from captioning.config.trust import WRITTEN, leaves

STAGES = {"data": "data", "encoder": "features", "datamodule": "features", "training": "training"}
THIS_RUN = {"run_dir", "ckpt_path", "logger", "hydra", "mode"}  # mode: of earlier releases


def typed_keys(overrides: Sequence[str]) -> set[str]:
    """Return the keys that overrides set, with those in the files of the groups they choose."""
    loader = GlobalHydra.instance().config_loader()
    parsed, files = loader._parse_overrides_and_create_caching_repo("config", list(overrides))
    keys, chosen = set(), [(each.key_or_group, each.value()) for each in parsed]
    while chosen:
        key, choice = chosen.pop()
        keys.add(key)
        if not files.group_exists(key) or not (file := files.load_config(f"{key}/{choice}")):
            continue
        groups = [each for each in file.defaults_list if hasattr(each, "group")]
        chosen += [(each.group.lstrip("/"), each.value) for each in groups]
        if file.header["package"] == "_global_":
            keys |= {path for path, _ in leaves(OmegaConf.to_container(file.config))}
    return keys


def resumed_config(cfg: DictConfig, stored: Mapping[str, Any], typed: set[str]) -> None:
    """Put a checkpoint's config into a composed one, except for the `typed` keys.

    Keys that are newer than the checkpoint stay. Raises UserError for what it may not name.
    """
    today = OmegaConf.to_container(cfg)
    for key, stage in STAGES.items():
        if isinstance(node := stored.get(key), Mapping):
            locate(node.get("_target_"), stage)
    with open_dict(cfg):
        for key in stored.keys() - THIS_RUN:
            cfg[key] = _resume(key, today.get(key), stored[key], typed)


def _resume(path: str, today: Any, stored: Any, typed: set[str]) -> Any:
    name, is_node = path.rpartition(".")[2], isinstance(stored, Mapping)
    if path in typed or (not is_node and any(key.startswith(f"{path}.") for key in typed)):
        return today
    if name in WRITTEN:
        return today or (None if name == "filename" else "${run_dir}")
    in_callback = path.startswith("callbacks.")
    if in_callback and isinstance(today, str) and "${" in today:  # it follows another key
        return today
    if not is_node:
        if "${" in str(stored) or (path == "name" and ".." in str(stored)):
            raise UserError(f"{path}={stored} of the checkpoint is no plain value; type {path}=…")
        return stored
    today = today if isinstance(today, Mapping) else {}
    is_same = today.get("_target_") == stored.get("_target_")
    if in_callback and today and not is_same:  # of an earlier release
        return today
    newer = {key: value for key, value in today.items() if is_same or f"{path}.{key}" in typed}
    return newer | {
        key: _resume(f"{path}.{key}", today.get(key), value, typed) for key, value in stored.items()
    }
