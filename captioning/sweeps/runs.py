"""Read the folders of runs and sweep jobs, and find the settings in which they differ.

A run's folder holds run.json, and what Hydra composed in .hydra/; a sweep's job status.json too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from captioning.config.hydra_arguments import as_typed
from captioning.sweeps.jobs import read_status

# Runs that differ in these only have one config: seeds are averaged over, the rest are places.
NON_CONFIG_KEYS = ("seed", "name", "ckpt_path", "run_dir")


class Run:
    """A run or a job. `overrides` are those of its command line, without `NON_CONFIG_KEYS`.

    `content` is run.json, {} where training has not begun; `status` running may be a killed one.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / "run.json"
        self.content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        status = read_status(folder) or self.content
        self.status: str = status["status"]
        self.error: str | None = status.get("error")
        typed = map(as_typed, self._yaml("overrides") or ())
        pairs = (override.lstrip("+").split("=", 1) for override in typed)
        overrides = {pair[0]: pair[-1] for pair in pairs if pair[0] not in NON_CONFIG_KEYS}
        self.overrides = dict(sorted(overrides.items()))

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.content["seed"]

    @property
    def scores(self) -> dict[str, float]:
        """The validation scores of its best epoch, named without `val/`."""
        metrics = self.content["metrics"].items()
        return {key[4:]: value for key, value in metrics if key.startswith("val/")}

    @cached_property
    def config_id(self) -> str:
        """The config as text, equal for runs that differ in their seed only."""
        config = {key: self._config[key] for key in self._config if key not in NON_CONFIG_KEYS}
        return json.dumps(config or self.overrides, sort_keys=True, default=str)

    def setting(self, key: str) -> Any:
        """Return a key's value: the command line's, or the config's; None where it has no such."""
        if key in self.overrides:
            return parse_number(self.overrides[key])
        if key in self._choices:
            return self._choices[key]
        value: Any = self._config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self._yaml("config") or {}

    @cached_property
    def _choices(self) -> dict[str, Any]:
        hydra = self._yaml("hydra")
        return hydra["hydra"]["runtime"]["choices"] if hydra else {}

    def _yaml(self, name: str) -> Any:
        path = self.folder / ".hydra" / f"{name}.yaml"
        try:
            return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
        except yaml.YAMLError:  # Hydra was killed while it wrote it, and writes it again
            return None


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Return all runs below the folders, with or without a result, sorted by folder."""
    run_folders = {
        path.parent
        for folder in folders
        for name in ("run.json", "status.json")
        for path in folder.rglob(name)
        if (path.parent / ".hydra" / "overrides.yaml").exists()
    }
    return [Run(folder) for folder in sorted(run_folders)]


def finished_runs(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that have a result."""
    return [run for run in runs if run.status == "finished"]


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys of any command line whose values differ between runs."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    return [key for key in keys if len({repr(run.setting(key)) for run in runs}) > 1]


def parse_number(text: str) -> int | float | str:
    """Return text as the number that it is, if it is one."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
