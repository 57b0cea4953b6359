"""Read a folder of images and captions into records, and collect all that is wrong with it.

caption_files.py chooses the files, caption_formats.py parses them, image_names.py finds the images.
"""

from __future__ import annotations

import hashlib
import html
import logging
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from captioning import UserError
from captioning.data.caption_files import find_captions
from captioning.data.caption_formats import CaptionRow
from captioning.data.image_list import LEFT_OUT, format_examples, list_images
from captioning.data.image_names import ImageFinder
from captioning.data.records import Record

NO_TRAIN = "no image in the train split"
NO_FILE = "images of a split that are not there"
NEAR = "image names that may mean several files or none for certain"
EMPTY = "empty captions"
NO_BLANKS = "captions that are one word, in a script without blanks"
TWO_SPLITS = "images in two splits"
NO_CAPTION = "images of a split without caption"
ERRORS = {  # what no run goes on with, and the way out
    NEAR: "write the name of the file, or leave them out with data.skip_unreadable=true",
    NO_BLANKS: "put blanks between the words first, with a segmenter (jieba, MeCab, PyThaiNLP, …)",
    TWO_SPLITS: "leave each in one",
    NO_TRAIN: "name images that are there, in a train list or with the split train",
    EMPTY: "write them or delete their lines",
    NO_CAPTION: "give them captions or take them out of the split",
    NO_FILE: "add them, or leave them out with data.skip_unreadable=true",
}
READ = "files that captions are read from"
UNREAD = "tables that are not read"
MATCHED = "image names that differ from the name of their file"
DRAWN = "images whose split is drawn, 80/10/10 by a hash of the name, as no file names any"
NO_SPLIT = "images in no split, which are not used"
NO_IMAGE = "ids that name no image"
UNCAPTIONED = "images without caption"
NOTES = (READ, UNREAD, MATCHED, DRAWN, NO_SPLIT, NO_IMAGE, UNCAPTIONED)
SYLLABLES = {"CJK": 1.0, "HIRAGANA": 1.0} | dict.fromkeys(  # a letter, by script without blanks
    ("KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"), 0.5
)

Findings = dict[str, list[str]]  # what is wrong or worth a note, by kind

log = logging.getLogger(__name__)


class CaptionFolder:
    """The data source for a folder in any of the layouts.

    Official splits are kept. Where the files name none, each image falls into train, val or
    test (80, 10 and 10 percent) by a hash of its id and `split_seed`. No image is opened:
    `skip_unreadable` leaves out missing ones here, and undecodable ones in `open_store`.
    """

    def __init__(
        self, root: str, layout: str = "auto", split_seed: int = 0, skip_unreadable: bool = False
    ):
        self.root = Path(root).expanduser()
        self.layout = layout
        self.split_seed = split_seed
        self.skip_unreadable = skip_unreadable

    def prepare(self) -> None:
        """Raise UserError if the folder is missing or in no known layout."""
        find_captions(self.root, self.layout)

    def records(self) -> list[Record]:
        """Return one record per image, in the order of the files; log what is left out.

        Raises UserError for the first kind of `ERRORS` that occurs.
        """
        records, findings = self.read()
        for kind, advice in ERRORS.items():
            if findings[kind] and not (kind in (NEAR, NO_FILE) and self.skip_unreadable):
                raise UserError(f"{self.root}: {format_examples(kind, findings[kind])}; {advice}")
        missing = (NO_IMAGE, NEAR, NO_FILE)
        for kind in (*missing, UNREAD, MATCHED, DRAWN, NO_SPLIT, *LEFT_OUT):
            if findings.get(kind):
                prefix = "left out: " if kind in missing else ""
                log.warning("%s: %s%s", self.root, prefix, format_examples(kind, findings[kind]))
        return records

    def read(self) -> tuple[list[Record], Findings]:
        """Return the records, and the findings by kind."""
        files = find_captions(self.root, self.layout)
        paths, left_out = list_images(self.root)
        # Karpathy's file paths are those of its author's disk.
        images = ImageFinder(self.root, paths, any_folder=files.layout == "karpathy")
        forms: list[str] = []
        records, findings = gather_records(files.rows(forms), images, self.split_seed)
        return records, findings | {READ: forms, UNREAD: files.unread} | left_out


def gather_records(
    rows: Iterable[CaptionRow], images: ImageFinder, seed: int
) -> tuple[list[Record], Findings]:
    """Gather rows whose names mean one file into one record, whose id is the first of the names."""
    by_name: dict[str, list[CaptionRow]] = {}
    for row in rows:
        by_name.setdefault(row.image, []).append(row)
    matches = images.match_names(by_name)
    by_image: dict[str, list[CaptionRow]] = {}
    for name, group in by_name.items():
        by_image.setdefault(matches[name].path or name, []).extend(group)
    all_rows = [row for group in by_name.values() for row in group]
    is_drawn = not any(row.split for row in all_rows)
    findings: Findings = {kind: [] for kind in (*ERRORS, *NOTES)}
    findings |= check_captions([row for row in all_rows if row.caption is not None])
    records = []
    for group in by_image.values():
        image_id = group[0].image
        path, note = matches[image_id]
        captions = tuple(row.caption for row in group if row.caption is not None)
        splits = {row.split: row.where for row in group if row.split}
        wheres = ", ".join(f"{split}: {where}" for split, where in splits.items())
        named = f"{image_id} ({wheres or group[0].where})"
        if len(splits) > 1:
            findings[TWO_SPLITS].append(named)
        if path is None and not splits and not is_drawn:
            findings[NO_IMAGE].append(named)
        elif path is None and note:
            findings[NEAR].append(f"{named}: {note}")
        elif path is None:
            findings[NO_FILE].append(named)
        elif captions:
            split = draw_split(image_id, seed) if is_drawn else next(iter(splits), None)
            records.append(Record(image_id, path, captions, split))
        elif splits:
            findings[NO_CAPTION].append(named)
    findings[MATCHED] = [
        f"{name} {note}" for name, (path, note) in matches.items() if path and note
    ]
    findings[DRAWN] = [record.image_id for record in records] if is_drawn else []
    findings[NO_SPLIT] = [record.image_id for record in records if not record.split]
    findings[UNCAPTIONED] = sorted(images.paths - {record.path for record in records})
    if not any(record.split == "train" for record in records):
        folders = " and ".join(map(str, images.folders))
        findings[NO_TRAIN] = [f"{len(by_image):,} named, {len(records):,} found in {folders}"]
    return records, findings


def draw_split(image_id: str, seed: int) -> str:
    """Return the split of an image, which does not depend on the other images."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def check_captions(rows: list[CaptionRow]) -> Findings:
    """Return the captions without a word, and those whose words are not separated."""
    empty = [row for row in rows if not has_word(row.caption)]
    joined = [row for row in rows if lacks_blanks(row.caption)]
    if 20 * len(joined) < len(rows):
        joined = []  # a stray caption among many, or a long word, is no fault
    return {
        kind: [f"{row.where} ({row.image}): {row.caption[:60]!r}" for row in wrong]
        for kind, wrong in ((EMPTY, empty), (NO_BLANKS, joined))
    }


def has_word(caption: str) -> bool:
    """Return whether a caption holds a letter or a digit: "!!", "&nbsp;" and emoji are no words."""
    return any(map(str.isalnum, html.unescape(caption.lower())))


def lacks_blanks(caption: str) -> bool:
    """Return whether a caption has more than three syllables a word, in scripts without blanks.

    Segmented Chinese and Japanese have about two, and a caption has several words.
    """
    if caption.isascii():
        return False
    scripts = (unicodedata.name(letter, "").split(" ")[0] for letter in caption)
    syllables = sum(SYLLABLES.get(script, 0) for script in scripts)
    return syllables > 3 * len(caption.replace("\u200b", " ").split())
