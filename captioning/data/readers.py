"""Readers: a folder of pictures and captions enters, records leave.

layouts.py turns the files into rows; `fold` alone gathers rows into records and finds what is
wrong with them. Next: verify.py reports that, vocabulary.py counts the words.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from captioning.data.layouts import READERS, Row, find_captions, read_split_lists
from captioning.data.pictures import SUFFIXES
from captioning.data.records import Record, UserError

PICTURE_FOLDERS = (
    "Flicker8k_Dataset",  # sic
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
    "Images",
    "images",
)

NO_TRAIN = "no picture in the train split"
NO_FILE = "pictures of a split that are not there"
ERRORS = {  # what no run goes on with, and the way out
    NO_TRAIN: "name pictures that are there, in a train list or with the split train",
    "pictures in two splits": "leave each in one",
    "empty captions": "write them or delete their lines",
    "pictures of a split without caption": "give them captions or take them out of the split",
    NO_FILE: "add them, or go on without with data.skip_unreadable=true",
}
NO_IMAGE = "ids that name no picture"
NOTES = (NO_IMAGE, "captions of such ids", "pictures without caption")

log = logging.getLogger(__name__)


class CaptionFolder:
    """The data source for a folder in any of the four layouts.

    Official splits are kept. Where the files name none, each picture falls into train, val or
    test (80, 10 and 10 percent) by a hash of its id and `split_seed`. No picture is opened here:
    `skip_unreadable` leaves out those that are missing, and the encoder those that are broken.
    """

    def __init__(
        self,
        root: str,
        layout: str = "auto",
        split_seed: int = 0,
        skip_unreadable: bool = False,
    ):
        self.root = Path(root).expanduser()
        self.layout = layout
        self.split_seed = split_seed
        self.skip_unreadable = skip_unreadable

    def prepare(self) -> None:
        """Raise UserError where the folder is missing or in no known layout."""
        find_captions(self.root, self.layout)

    def records(self) -> list[Record]:
        """Return one record an image, in the order of the files.

        Raises UserError for the first kind of `ERRORS` that is found.
        """
        records, findings = self.read()
        for kind, advice in ERRORS.items():
            if findings[kind] and not (kind == NO_FILE and self.skip_unreadable):
                raise UserError(f"{self.root}: {count(kind, findings[kind])}; {advice}")
        for kind in (NO_IMAGE, NO_FILE):
            if findings[kind]:
                log.warning("%s: left out: %s", self.root, count(kind, findings[kind]))
        return records

    def read(self) -> tuple[list[Record], dict[str, list[str]]]:
        """Return the records, and for each kind of `ERRORS` and `NOTES` all that is of it."""
        layout, path = find_captions(self.root, self.layout)
        rows = list(READERS[layout](path))
        if layout in ("flickr8k", "kaggle"):
            rows += read_split_lists(self.root)
        return fold(rows, Pictures(self.root, layout), self.split_seed)


def count(kind: str, examples: Sequence[str]) -> str:
    """Say how many there are of a kind, with the first five."""
    more = ", …" if len(examples) > 5 else ""
    return f"{kind} ({len(examples):,}): {', '.join(examples[:5])}{more}"


def fold(
    rows: Iterable[Row], pictures: Pictures, seed: int
) -> tuple[list[Record], dict[str, list[str]]]:
    """Gather rows into one record an image, and whatever is wrong into findings by kind."""
    by_image: dict[str, list[Row]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    seeded = not any(row.split for group in by_image.values() for row in group)
    findings: dict[str, list[str]] = {kind: [] for kind in (*ERRORS, *NOTES)}
    records, seen = [], set()
    for image, group in by_image.items():
        written = [row for row in group if row.caption is not None]
        splits = {row.split: row.where for row in group if row.split}
        named = f"{image} ({', '.join(f'{split}: {where}' for split, where in splits.items())})"
        path = pictures.find(image)
        seen.add(path)
        if len(splits) > 1:
            findings["pictures in two splits"].append(named)
        empty = [row for row in written if not row.caption.strip()]
        findings["empty captions"] += [f"{row.where} ({image})" for row in empty]
        if path is None:
            findings[NO_FILE if splits else NO_IMAGE].append(named if splits else image)
            findings["captions of such ids"] += [row.where for row in written if not splits]
        elif written:
            split = seeded_split(image, seed) if seeded else next(iter(splits), None)
            records.append(Record(image, path, tuple(row.caption for row in written), split))
        elif splits:
            findings["pictures of a split without caption"].append(named)
        else:
            findings["pictures without caption"].append(path)
    findings["pictures without caption"] += sorted(pictures.paths - seen)
    if not any(record.split == "train" for record in records):
        folders = " and ".join(str(folder) for folder in pictures.folders)
        findings[NO_TRAIN] = [f"{len(by_image):,} named, {len(records):,} found in {folders}"]
    return records, findings


def seeded_split(image: str, seed: int) -> str:
    """Return the split of an image, whatever other images there are."""
    digest = hashlib.sha256(f"{seed}:{image}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


class Pictures:
    """The picture files of a folder, without hidden ones (a Mac's `._x.jpg`)."""

    def __init__(self, root: Path, layout: str):
        self.by_name = layout == "karpathy"  # whose file paths are those of its author's disk
        names = os.listdir(root)  # not is_dir(): on a Mac, Images/ is images/ too
        subfolders = [root / name for name in PICTURE_FOLDERS if name in names]
        self.folders = [root, *subfolders]
        listed = [root] if layout == "csv" or not subfolders else subfolders
        self.paths = {path for folder in listed for path in self._list(folder)}

    @staticmethod
    def _list(folder: Path) -> Iterator[str]:
        for directory, subfolders, names in os.walk(folder):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in names:
                if name.lower().endswith(tuple(SUFFIXES)) and not name.startswith("."):
                    yield os.path.normpath(os.path.join(directory, name))

    def find(self, image: str) -> str | None:
        """Return the path of an image, or None."""
        names = (image, image.rpartition("/")[2]) if self.by_name else (image,)
        paths = [
            os.path.normpath(os.path.join(folder, name))
            for name in names
            for folder in self.folders
        ]
        listed = (path for path in paths if path in self.paths)  # spares most calls of isfile
        return next(listed, None) or next((path for path in paths if os.path.isfile(path)), None)
