"""Readers: a folder of pictures and captions enters, records leave.

layouts.py turns the files into rows; `fold` alone gathers rows into records and finds what is
wrong with them. Next: verify.py reports that, vocabulary.py counts the words.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from captioning import UserError
from captioning.data.caption_checks import EMPTY, NO_BLANKS, check_captions
from captioning.data.caption_files import find_captions
from captioning.data.image_list import LEFT_OUT, count, list_images
from captioning.data.image_names import Match, NameIndex, canonical
from captioning.data.layouts import Row
from captioning.data.records import Record

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
NEAR = "image names that match no file for certain"
ERRORS = {  # what no run goes on with, and the way out
    NEAR: "write the name of the file, or go on without with data.skip_unreadable=true",
    NO_BLANKS: "put blanks between the words first, with a segmenter (jieba, MeCab, PyThaiNLP, …)",
    NO_TRAIN: "name pictures that are there, in a train list or with the split train",
    "pictures in two splits": "leave each in one",
    EMPTY: "write them or delete their lines",
    "pictures of a split without caption": "give them captions or take them out of the split",
    NO_FILE: "add them, or go on without with data.skip_unreadable=true",
}
NO_IMAGE = "ids that name no picture"
UNREAD = "tables that are not read"
MATCHED = "image names that differ from the name of their file"
DRAWN = "images whose split is drawn, 80/10/10 by a hash of the name, as no file names any"
NO_SPLIT = "images in no split, which are not used"
NOTES = (UNREAD, MATCHED, DRAWN, NO_SPLIT, NO_IMAGE, "captions of such ids")
NOTES += ("pictures without caption",)

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
            if findings[kind] and not (kind in (NEAR, NO_FILE) and self.skip_unreadable):
                raise UserError(f"{self.root}: {count(kind, findings[kind])}; {advice}")
        for kind in (NO_IMAGE, NEAR, NO_FILE):
            if findings[kind]:
                log.warning("%s: left out: %s", self.root, count(kind, findings[kind]))
        for kind in (UNREAD, MATCHED, DRAWN, NO_SPLIT, *LEFT_OUT):
            if findings.get(kind):
                log.warning("%s: %s", self.root, count(kind, findings[kind]))
        return records

    def read(self) -> tuple[list[Record], dict[str, list[str]]]:
        """Return the records, and for each kind of `ERRORS` and `NOTES` all that is of it.

        Of `LEFT_OUT`, which is no error, only the kinds that are there.
        """
        files = find_captions(self.root, self.layout)
        pictures = Pictures(self.root, files.layout)
        records, findings = fold(files.rows(), pictures, self.split_seed)
        return records, findings | {UNREAD: files.unread} | pictures.left_out


def fold(
    rows: Iterable[Row], pictures: Pictures, seed: int
) -> tuple[list[Record], dict[str, list[str]]]:
    """Gather rows into one record an image, and whatever is wrong into findings by kind.

    Rows are of one image where their names mean one file. Its id is the first of these names.
    """
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.image, []).append(row)
    seeded = not any(row.split for group in by_name.values() for row in group)
    matches = pictures.match(by_name)
    by_image: dict[str, list[Row]] = {}
    for name, group in by_name.items():
        by_image.setdefault(matches[name].path or name, []).extend(group)
    captions = [row for group in by_name.values() for row in group if row.caption is not None]
    findings = {kind: [] for kind in (*ERRORS, *NOTES)} | check_captions(captions)
    records = []
    for group in by_image.values():
        image = group[0].image
        path, reason = matches[image]
        written = [row for row in group if row.caption is not None]
        splits = {row.split: row.where for row in group if row.split}
        wheres = ", ".join(f"{split}: {where}" for split, where in splits.items())
        named = f"{image} ({wheres or group[0].where})"
        if len(splits) > 1:
            findings["pictures in two splits"].append(named)
        if path is None and reason and (splits or seeded):
            findings[NEAR].append(f"{named}: {reason}")
        elif path is None and (splits or seeded):
            findings[NO_FILE].append(named)
        elif path is None:
            findings[NO_IMAGE].append(image)
            findings["captions of such ids"] += [row.where for row in written]
        elif written:
            split = seeded_split(image, seed) if seeded else next(iter(splits), None)
            records.append(Record(image, path, tuple(row.caption for row in written), split))
        elif splits:
            findings["pictures of a split without caption"].append(named)
        else:
            findings["pictures without caption"].append(path)
    findings[MATCHED] = [
        f"{name} is {pictures.below(path)} ({reason})"
        for name, (path, reason) in matches.items()
        if path and reason
    ]
    findings[DRAWN] = [record.image_id for record in records] if seeded else []
    findings[NO_SPLIT] = [record.image_id for record in records if not record.split]
    findings["pictures without caption"] += sorted(pictures.paths - by_image.keys())
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
    """The image files of a folder; `left_out` is what else it holds, by kind of `LEFT_OUT`."""

    def __init__(self, root: Path, layout: str):
        self.root = root
        self.by_name = layout == "karpathy"  # whose file paths are those of its author's disk
        names = os.listdir(root)  # not is_dir(): on a Mac, Images/ is images/ too
        subfolders = [root / name for name in PICTURE_FOLDERS if name in names]
        self.folders = [root, *subfolders]
        paths, self.left_out = list_images(root)
        self.paths = set(map(os.path.normpath, paths))

    def find(self, image: str) -> str | None:
        """Return the path of the file that has exactly this name, or None."""
        paths = [os.path.normpath(os.path.join(folder, image)) for folder in self.folders]
        known = next((path for path in paths if path in self.paths), None)  # spares most isfile
        path = known or next(filter(os.path.isfile, paths), None)
        if path and (not known or os.path.islink(path)):
            return self.by_target.get(os.path.realpath(path), path)
        return path

    @functools.cached_property
    def by_target(self) -> dict[str, str]:
        """The images by what they are links to: of several the file itself, or the first link."""
        paths = sorted(self.paths, key=lambda path: (os.path.islink(path), path), reverse=True)
        return {os.path.realpath(path): path for path in paths}

    def match(self, rows: Mapping[str, Sequence[Row]]) -> dict[str, Match]:
        """Return for each image name the file it means, by exactly that name or nearly so.

        A file that two names with captions mean, which differ in more than slashes or Unicode
        form, stays with the one that has it exactly: an image of the other may be missing.
        """
        matches = {name: Match(self.find(name)) for name in rows}
        missing = [name for name, match in matches.items() if match.path is None]
        if not missing:
            return matches
        index = NameIndex(str(self.root), self.paths, PICTURE_FOLDERS)
        matches |= {name: index.match(name, self.by_name) for name in missing}
        sharing: dict[str, list[str]] = {}
        for name, (path, _) in matches.items():
            if path and any(row.caption is not None for row in rows[name]):
                sharing.setdefault(path, []).append(name)
        for path, names in sharing.items():
            sure = {canonical(name) for name in names if not matches[name].reason}
            for name in names:
                others = (other for other in names if canonical(other) != canonical(name))
                other = next(others, None)
                if other and canonical(name) not in sure:
                    near = f"near is {self.below(path)}, which differs in {matches[name].reason}"
                    where = f"is named {other} at {rows[other][0].where}"
                    matches[name] = Match(None, f"{near} and {where}")
        return matches

    def below(self, path: str) -> str:
        """Return the path of a file as seen from the data folder."""
        return os.path.relpath(path, self.root)
