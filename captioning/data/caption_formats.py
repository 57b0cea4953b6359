"""Parse the caption files of the four layouts, one `CaptionRow` a caption.

To read another format, write a function like `read_csv`, add it to `READERS` and its file names to
`LAYOUTS` in caption_files.py.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from captioning import UserError

SPLIT_NAMES = {"": None, "train": "train", "restval": "train", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "dev", "valid", "validation"), "val")


class CaptionRow(NamedTuple):
    """One caption, and the file and line that hold it; `caption` is None in a list of a split."""

    image: str
    caption: str | None
    split: str | None
    where: str


def read_flickr8k(path: Path) -> Iterator[CaptionRow]:
    """Read Flickr8k.token.txt: `IMAGE.jpg#K`, a tab, a caption (Hodosh et al., 2013)."""
    for where, line in read_lines(path):
        name, tab, caption = line.partition("\t")
        image, _, number = name.rpartition("#")
        if not (tab and image and number.strip().isdigit()):
            raise UserError(f"{where}: not IMAGE.jpg#NUMBER, a tab and a caption: {line[:60]!r}")
        yield CaptionRow(image.strip(), caption, None, where)


def read_split_list(path: Path, split: str) -> Iterator[CaptionRow]:
    """Read one of Flickr_8k.{train,dev,test}Images.txt: an image name a line."""
    for where, line in read_lines(path):
        yield CaptionRow(line.strip(), None, split, where)


def read_csv(path: Path) -> Iterator[CaptionRow]:
    """Read a table with the columns image,caption[,split]; others are ignored.

    The csv module and not pandas: every cell stays text ("None", "NA"), every row knows its line.
    """
    table = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(table, [])]
        if [header.count("image"), header.count("caption")] != [1, 1] or header.count("split") > 1:
            raise UserError(
                f"{path}:1: the columns are not image,caption[,split], each once: {header}; name "
                "them so, with one caption per row"
            )
        line = table.line_num + 1
        for cells in table:
            where, line = f"{path}:{line}", table.line_num + 1
            if cells:
                yield _parse_cells(header, cells, where)
    except csv.Error as error:
        raise UserError(f"{path}:{table.line_num}: not CSV, a quote too many? ({error})") from None


def _parse_cells(header: list[str], cells: list[str], where: str) -> CaptionRow:
    if len(cells) != len(header):
        raise UserError(
            f"{where}: {len(cells)} cells for {len(header)} columns: put quotes around "
            "a caption that holds a comma"
        )
    row = dict(zip(header, cells, strict=True))
    image = row["image"].strip()
    if not image:
        raise UserError(f"{where}: the image has no name")
    return CaptionRow(image, row["caption"], _parse_split(row.get("split", ""), where), where)


def read_karpathy(path: Path) -> Iterator[CaptionRow]:
    """Read Karpathy's JSON (Karpathy and Fei-Fei, 2015); "restval" counts as train."""
    try:
        images = list(json.loads(_read_text(path))["images"])
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
            split = _parse_split(image.get("split") or "", where)
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{where}: no filename, or not all sentences[].raw are text") from None
        for caption in captions or [None]:
            yield CaptionRow(name, caption, split, where)


READERS = {
    "flickr8k": read_flickr8k,
    "kaggle": read_csv,
    "karpathy": read_karpathy,
    "csv": read_csv,
}


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place (`path:number`) and text of each line of a UTF-8 file that is not blank."""
    # Not splitlines, which also breaks at characters that a caption may hold (U+2028).
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line.removesuffix("\r")


def _parse_split(name: str, where: str) -> str | None:
    try:
        return SPLIT_NAMES[name.strip().lower()]
    except KeyError:
        raise UserError(f"{where}: no split is called {name!r}: type train, val or test") from None


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte {error.start:,} of the file is not UTF-8: save it as UTF-8"
        ) from None
