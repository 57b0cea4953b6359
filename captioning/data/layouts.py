"""Read the caption files of the four layouts into rows, one a caption.

caption_files.py says which files of a folder these are; readers.py folds rows into records.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from captioning import UserError
from captioning.data.records import SPLITS

SPLIT_NAMES = {"": None, "train": "train", "restval": "train", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "dev", "valid", "validation"), "val")
SPLIT_LIST = re.compile(
    r"flickr_?8k\.(train|val|dev|valid|validation|test)images\.txt", re.IGNORECASE
)


class Row(NamedTuple):
    """One caption as a file has it, and where; `caption` is None where only a split is given."""

    image: str
    caption: str | None
    split: str | None
    where: str


def read_flickr8k(path: Path) -> Iterator[Row]:
    """Read Flickr8k.token.txt: `IMAGE.jpg#K`, a tab, a caption (Hodosh et al., 2013)."""
    for where, line in lines(path):
        name, tab, caption = line.partition("\t")
        image, _, number = name.rpartition("#")
        if not (tab and image and number.strip().isdigit()):
            raise UserError(f"{where}: not IMAGE.jpg#NUMBER, a tab and a caption: {line[:60]!r}")
        yield Row(image.strip(), caption, None, where)


def read_split_lists(root: Path) -> Iterator[Row]:
    """Read those of Flickr_8k.{train,dev,test}Images.txt that are there: one image a line."""
    paths = sorted([*(root / "Flickr8k_text").glob("*.txt"), *root.glob("*.txt")])
    named = ((path, SPLIT_LIST.fullmatch(path.name)) for path in paths)
    splits = [(path, SPLIT_NAMES[found[1].lower()]) for path, found in named if found]
    for path, split in sorted(splits, key=lambda pair: SPLITS.index(pair[1])):
        for where, line in lines(path):
            yield Row(line.strip(), None, split, where)


def read_csv(path: Path) -> Iterator[Row]:
    """Read a table with the columns image,caption[,split]; others are ignored.

    The csv module and not pandas: every cell stays text ("None", "NA"), every row knows its line.
    """
    table = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(table, [])]
        if not {"image", "caption"} <= set(header):
            raise UserError(
                f"{path}:1: the columns are not image,caption[,split]: {header}; name them so, "
                "with one caption a row"
            )
        if twice := [name for name in ("image", "caption", "split") if header.count(name) > 1]:
            raise UserError(f"{path}:1: two columns are called {twice[0]}: leave one of them out")
        line = table.line_num + 1
        for cells in table:
            where, line = f"{path}:{line}", table.line_num + 1
            if not cells:
                continue
            row = dict(zip(header, cells, strict=False))
            if len(cells) != len(header):
                raise UserError(
                    f"{where}: {len(cells)} cells for {len(header)} columns: put quotes around "
                    "a caption that holds a comma"
                )
            if not row["image"].strip():
                raise UserError(f"{where}: the image has no name")
            split = _split(row.get("split", ""), where)
            yield Row(row["image"].strip(), row["caption"], split, where)
    except csv.Error as error:
        raise UserError(f"{path}:{table.line_num}: not CSV, a quote too many? ({error})") from None


def read_karpathy(path: Path) -> Iterator[Row]:
    """Read Karpathy's JSON (Karpathy and Fei-Fei, 2015); "restval" counts as train."""
    try:
        images = list(json.loads(_text(path))["images"])
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except (KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: not Karpathy's JSON: there is no list `images`") from None
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        try:
            name = "/".join(filter(None, (image.get("filepath"), image["filename"])))
            captions = [sentence["raw"] for sentence in image["sentences"]]
            if not all(isinstance(caption, str) for caption in captions):
                raise TypeError
            split = _split(image.get("split") or "", where)
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{where}: no filename, or not all sentences[].raw are text") from None
        for caption in captions or [None]:
            yield Row(name, caption, split, where)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "flickr8k": read_flickr8k,
    "kaggle": read_csv,
    "karpathy": read_karpathy,
    "csv": read_csv,
}


def _split(name: str, where: str) -> str | None:
    try:
        return SPLIT_NAMES[name.strip().lower()]
    except KeyError:
        raise UserError(f"{where}: no split is called {name!r}: type train, val or test") from None


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a UTF-8 file that are not empty, with where each is."""
    # Not splitlines, which also breaks at characters that a caption may hold (U+2028).
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line.removesuffix("\r")


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte {error.start:,} of the file is not UTF-8: save it as UTF-8"
        ) from None
