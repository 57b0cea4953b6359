"""Folders of runs enter; the runs, and what differs between them, leave. Next: rows.py.

A run's folder holds run.json, and what Hydra composed in .hydra/; a sweep's job status.json too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from captioning.sweeps.jobs import read_status

# What makes no other experiment: seeds are folded, the rest is where and whence.
APART = ("seed", "name", "ckpt_path")


class Run:
    """A run or a job. `overrides` are those of its command line, without seed and name.

    `status` is finished, failed, interrupted, pruned by a search, or running, perhaps killed;
    `content` is what run.json says, {} where training has not begun.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / "run.json"
        self.content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        status = read_status(folder) or self.content
        self.status: str = status["status"]
        self.error: str | None = status.get("error")
        given = (one.split("=", 1) for one in _yaml(folder, "overrides") or [])
        overrides = {pair[0].lstrip("+"): pair[-1] for pair in given}
        self.overrides = {key: overrides[key] for key in sorted(overrides) if key not in APART}

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
    def experiment(self) -> str:
        """What the run shares with those of other seeds: its config, however it was typed."""
        config = {
            key: value for key, value in self._config.items() if key not in (*APART, "run_dir")
        }
        return json.dumps(config or self.overrides, sort_keys=True, default=str)

    @cached_property
    def _config(self) -> dict[str, Any]:
        return _yaml(self.folder, "config") or {}

    @cached_property
    def _choices(self) -> dict[str, Any]:
        hydra = _yaml(self.folder, "hydra") or {"hydra": {"runtime": {"choices": {}}}}
        return hydra["hydra"]["runtime"]["choices"]

    def setting(self, key: str) -> Any:
        """Return a key's value: the command line's, or the config's; None where it has no such."""
        if key in self.overrides:
            return number(self.overrides[key])
        if key in self._choices:
            return self._choices[key]
        value: Any = self._config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the runs below the folders, whatever became of them, by folder."""
    found = {
        path.parent
        for folder in folders
        for name in ("run.json", "status.json")
        for path in folder.rglob(name)
        if (path.parent / ".hydra" / "overrides.yaml").exists()
    }
    return [Run(folder) for folder in sorted(found)]


def finished(runs: Iterable[Run]) -> list[Run]:
    """Return those that have a result."""
    return [run for run in runs if run.status == "finished" and run.content]


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the keys of any command line that have different values in different runs."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    return [key for key in keys if len({repr(run.setting(key)) for run in runs}) > 1]


def number(text: str) -> int | float | str:
    """Return a command line's text as the number it is, if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _yaml(folder: Path, name: str) -> Any:
    path = folder / ".hydra" / f"{name}.yaml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    except yaml.YAMLError:  # Hydra was killed while it wrote it, and writes it again
        return None
