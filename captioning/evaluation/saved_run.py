"""Open a finished training run from its folder, for notebooks and scripts."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from captioning import UserError
from captioning.checkpoint import read_checkpoint
from captioning.config.build import build_stored
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.training.validation import Generated


class SavedRun(NamedTuple):
    """A run's best checkpoint, its config with the paths of today, vocabulary and records."""

    checkpoint: Path
    config: dict[str, Any]
    vocabulary: Vocabulary
    records: list[Record]

    def split(self, name: str) -> list[Record]:
        """Return the records of one split: train, val or test."""
        return [record for record in self.records if record.split == name]

    def generated(self) -> list[Generated]:
        """Read the captions of the validation images by best.ckpt, with their scores."""
        path = self.checkpoint.with_name("captions.csv")
        if not path.is_file():
            raise UserError(f"there is no {path}: a run leaves it beside best.ckpt")
        by_id = {record.image_id: record for record in self.records}
        generated = []
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                image_id, _, caption = row.pop("image"), row.pop("path", ""), row.pop("caption")
                if image_id not in by_id:
                    root = self.config["data"]["root"]
                    raise UserError(f"{path} names {image_id}, which is not in {root} any more")
                scores = {key: float(value) for key, value in row.items() if value}
                generated.append(Generated(by_id[image_id], caption, scores))
        return generated


def open_run(path: str | Path, data: str | Path | None = None) -> SavedRun:
    """Open a run by its folder, by its best.ckpt, or the newest of a folder of runs.

    `data` stands for the data.root of training. Nothing is written: scenes are not drawn again.
    Raises UserError for a missing run and for missing data.
    """
    checkpoint = find_checkpoint(path)
    contents = read_checkpoint(checkpoint)["captioning"]
    config = contents["config"]
    folders = working_folders(checkpoint, config.get("run_dir", "."))
    root = Path(data or config["data"]["root"]).expanduser()
    roots = dict.fromkeys(str(folder / root) for folder in (folders[-1:] if data else folders))
    config["data"]["root"] = next(filter(os.path.exists, roots), None)
    if not config["data"]["root"]:
        hint = "put them there, or type open_run(RUN, data=FOLDER)"
        raise UserError(f"the data of {checkpoint} are not in {' or '.join(roots)}; {hint}")
    if weights := config["encoder"].get("weights"):  # a name or a file
        files = filter(Path.is_file, (folder / weights for folder in folders))
        config["encoder"]["weights"] = str(next(files, weights))
    records = build_stored(config["data"], "data").records()
    return SavedRun(checkpoint, config, Vocabulary(contents["vocabulary"]), records)


def find_checkpoint(path: str | Path) -> Path:
    """Return the newest best.ckpt below a folder, or the file itself. Raises UserError for none."""
    path = Path(path).expanduser()
    checkpoints = [path] if path.is_file() else path.rglob("best.ckpt")
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.stat().st_mtime, default=None)
    if not newest:
        raise UserError(f"there is no best.ckpt in {path} or below; type make demo for a first run")
    return newest


def working_folders(checkpoint: Path, run_dir: str) -> list[Path]:
    """Return where a run was started: moved along with it (by links, too), there, or here."""
    for folder in (*checkpoint.absolute().parents, Path(run_dir)):  # a trial's is its search's
        with suppress(Exception):  # a foreign file can raise anything
            runtime = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.runtime
            moved = folder / os.path.relpath(runtime.cwd, runtime.output_dir)
            return [Path(os.path.abspath(moved)), moved.resolve(), Path(runtime.cwd), Path.cwd()]
    return [Path.cwd()]


def rank_captions(rows: Sequence[Generated], *keys: str) -> list[Generated]:
    """Sort by the first score, lowest first, ties by the next, without images that lack one."""
    scored = [row for row in rows if all(key in row.scores for key in keys)]
    if not scored:
        raise UserError(f"no caption has {' and '.join(keys)}; type a score of captions.csv")
    return sorted(scored, key=lambda row: [row.scores[key] for key in keys])
