"""Open a finished training run from its folder, for notebooks and scripts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning import UserError
from captioning.checkpoint import read_checkpoint
from captioning.config.build import build_stored
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.training.validation import Generated


class SavedRun(NamedTuple):
    """A run's best checkpoint, its config and vocabulary, and the records it was trained on."""

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


def open_run(path: str | Path) -> SavedRun:
    """Open a run by its folder, by its best.ckpt, or the newest of a folder of runs."""
    checkpoint = find_checkpoint(path)
    contents = read_checkpoint(checkpoint)["captioning"]
    config = contents["config"]
    root = find_root(config["data"]["root"], checkpoint)
    source = build_stored(config["data"] | {"root": root}, "data")
    source.prepare()
    return SavedRun(checkpoint, config, Vocabulary(contents["vocabulary"]), source.records())


def find_checkpoint(path: str | Path) -> Path:
    """Return the newest best.ckpt below a folder, or the file itself. Raises UserError for none."""
    if Path(path).is_file():
        return Path(path)
    checkpoints = Path(path).rglob("best.ckpt")
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.stat().st_mtime, default=None)
    if not newest:
        raise UserError(f"there is no best.ckpt in {path} or below; type make demo for a first run")
    return newest


def find_root(root: str, checkpoint: Path) -> str:
    """Return where a run's data are: relative to here, or to a folder above the run's own."""
    for folder in (Path(), *checkpoint.resolve().parents):
        if (path := folder / Path(root).expanduser()).exists():
            return str(path)
    return root


def rank_captions(rows: Sequence[Generated], *keys: str) -> list[Generated]:
    """Sort by the first score, the lowest first, ties by the next; without images that lack one."""
    scored = [row for row in rows if all(key in row.scores for key in keys)]
    return sorted(scored, key=lambda row: [row.scores[key] for key in keys])
