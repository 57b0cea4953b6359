"""A training run, opened again: its folder enters; checkpoint, data and captions leave.

For notebooks and scripts: one path is enough, from whatever folder they run in. Next: figures.py.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning import UserError
from captioning.captioner import read_checkpoint
from captioning.config.build import build_stored
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.training.validation import Generated


class Run(NamedTuple):
    """A run's best checkpoint, the config and words in it, and the records it was trained on."""

    checkpoint: Path
    config: dict[str, Any]
    vocabulary: Vocabulary
    records: list[Record]

    def split(self, name: str) -> list[Record]:
        """Return the records of one split: train, val or test."""
        return [record for record in self.records if record.split == name]

    def generated(self) -> list[Generated]:
        """Return what best.ckpt said of the validation pictures, with its scores.

        Raises UserError where captions.csv is not beside it, or is of other pictures.
        """
        path = self.checkpoint.with_name("captions.csv")
        if not path.is_file():
            raise UserError(f"there is no {path}: a run leaves it beside best.ckpt")
        by_id = {record.image_id: record for record in self.records}
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        gone = [row["image"] for row in rows if row["image"] not in by_id]
        if gone:
            root = self.config["data"]["root"]
            raise UserError(f"{path} names {gone[0]}, which is not in {root} any more")
        texts = ("image", "path", "caption")
        return [
            Generated(
                by_id[row["image"]],
                row["caption"],
                {key: float(row[key]) for key in row if key not in texts and row[key]},
            )
            for row in rows
        ]


def open_run(path: str | Path) -> Run:
    """Open a run by its folder, by its best.ckpt, or by a folder of runs, the newest of them.

    Raises UserError where there is none, or where its data is gone.
    """
    checkpoint = find_checkpoint(path)
    contents = read_checkpoint(checkpoint)["captioning"]
    config = contents["config"]
    root = find_root(config["data"]["root"], checkpoint)
    source = build_stored(config["data"] | {"root": root}, "data")
    source.prepare()
    return Run(checkpoint, config, Vocabulary(contents["vocabulary"]), source.records())


def find_checkpoint(path: str | Path) -> Path:
    """Return the newest best.ckpt below a folder, or the file itself. Raises UserError for none."""
    if Path(path).is_file():
        return Path(path)
    found = sorted(Path(path).rglob("best.ckpt"), key=lambda one: one.stat().st_mtime)
    if not found:
        raise UserError(f"there is no best.ckpt in {path} or below; type make demo for a first run")
    return found[-1]


def find_root(root: str, checkpoint: Path) -> str:
    """Return where a path of a run's config is now, seen from here.

    Relative ones hold where the training was started: in a folder above the run's own.
    """
    places = [Path(), *checkpoint.resolve().parents]
    found = (place / Path(root).expanduser() for place in places)
    return str(next((one for one in found if one.exists()), root))


def ranked(rows: Sequence[Generated], *keys: str) -> list[Generated]:
    """Return the rows from the lowest score to the highest; ties are settled by the next key.

    A picture without the score is left out.
    """
    scored = [one for one in rows if all(key in one.scores for key in keys)]
    return sorted(scored, key=lambda one: [one.scores[key] for key in keys])
