"""Parse the caption files of all layouts, one `CaptionRow` a caption.

To read another format, write a function like `read_json` and add it, with names of its files, to
`LAYOUTS` in caption_files.py. It adds to `forms` what it took the file for: `verify` reports that.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from captioning import UserError
from captioning.data.image_list import UTF16_MARKS, image_suffixes

COLUMNS = {  # the names of a table's columns, in any case; of several that are there the first
    "image": ("image", "file_name", "filename", "image_name"),
    "caption": ("caption", "text", "comment"),  # or caption_0, caption_1 …
    "split": ("split",),
}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SEP_LINE = re.compile(r'"?sep=([^"\w ])"?', re.IGNORECASE)  # which Excel reads and does not show
SPLIT_NAMES = {"": None, "train": "train", "restval": "train", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "dev", "valid", "validation"), "val")


class CaptionRow(NamedTuple):
    """One caption, and the file and line that hold it; `caption` is None in a list of a split."""

    image: str
    caption: str | None
    split: str | None
    where: str


def read_flickr8k(path: Path, forms: list[str]) -> Iterator[CaptionRow]:
    """Read Flickr8k.token.txt: `IMAGE.jpg#K`, a tab, a caption (Hodosh et al., 2013)."""
    forms.append(f"{path}: Flickr8k's tokens")
    for where, line in read_lines(path):
        name, tab, caption = line.partition("\t")
        image, _, number = name.rpartition("#")
        if not (tab and image and number.strip().isdigit()):
            raise UserError(f"{where}: not IMAGE.jpg#NUMBER, a tab and a caption: {line[:60]!r}")
        yield CaptionRow(image.strip(), caption, None, where)


def read_sidecar(path: Path, forms: list[str]) -> Iterator[CaptionRow]:
    """Read the text beside the image `path`: one caption."""
    where = text_path(str(path))
    caption = _read_text(Path(where))[0].removesuffix("\n").removesuffix("\r")
    yield CaptionRow(path.name, caption, None, where)


def text_path(image: str) -> str:
    """Return the path of the text beside an image: photo.txt of photo.jpg."""
    return os.path.splitext(image)[0] + ".txt"


def read_table(path: Path, forms: list[str]) -> Iterator[CaptionRow]:
    """Read a table, or JSON lines, with columns of the names in `COLUMNS`; others are ignored.

    Columns are separated by what the header holds most of, or what Excel's line `sep=;` says. The
    csv module and not pandas: every cell stays text ("None", "NA"), every row knows its line.
    """
    if path.suffix.lower() == ".jsonl":
        yield from _read_json_lines(path, forms)
        return
    text, encoding = _read_text(path)
    lines = io.StringIO(text, newline="")
    header, start = lines.readline(), 1
    if sep_line := SEP_LINE.fullmatch(header.strip("\r\n")):
        header, start = lines.readline(), 2
    sep = sep_line[1] if sep_line else max(SEPARATORS, key=header.count)
    # Not in what csv writes, where a quote within a cell is doubled, and another begins or ends it.
    padded = re.search(rf'[{re.escape(sep)}] +"(?!["\r\n{re.escape(sep)}]|\Z)', text)
    skips_blanks = sep != "|" and bool(padded or f"{sep} " in header)  # Flickr30k's quotes are text
    del text  # which `lines` holds
    table = csv.reader(
        chain([header], lines), delimiter=sep, strict=True, skipinitialspace=skips_blanks
    )
    try:
        names = next(table, [])
        columns = _find_columns(names, f"{path}:{start}", sep)
        used = ", ".join(names[number].strip() for number in chain(*columns))
        forms.append(f"{path}: {used}, separated by {SEPARATORS.get(sep, sep)}, in {encoding}")
        line = table.line_num + start
        for cells in table:
            where, line = f"{path}:{line}", table.line_num + start
            if cells and len(cells) != len(names):
                fewer = len(cells) < len(names)
                how = "a {} is missing" if fewer else "put quotes around a caption that holds a {}"
                counts = f"{len(cells)} cells for {len(names)} columns: {how.format(repr(sep))}"
                raise UserError(f"{where}: {counts}: {sep.join(cells)[:60]!r}")
            if any(cells):
                yield from _parse_cells(columns, cells, where)
    except csv.Error as error:
        where = f"{path}:{table.line_num + start - 1}"
        raise UserError(f"{where}: not CSV, a quote too many? ({error})") from None


def _read_json_lines(path: Path, forms: list[str]) -> Iterator[CaptionRow]:
    forms.append(f"{path}: JSON lines")
    names = None
    for where, line in read_lines(path):
        try:
            row = json.loads(line)
            if tuple(row) != names:
                names = tuple(row)
                columns = _find_columns(names, where)
            cells = ["" if cell is None else cell for cell in row.values()]
            if not all(isinstance(cells[number], str) for number in chain(*columns)):
                raise TypeError
            yield from _parse_cells(columns, [*map(str, cells)], where)  # a score is a number
        except (json.JSONDecodeError, AttributeError, TypeError, RecursionError):
            raise UserError(f"{where}: not JSON of texts by name: {line[:60]!r}") from None


def _find_columns(header: Sequence[str], where: str, separator: str = ",") -> list[list[int]]:
    """Return the numbers of the columns of each kind in `COLUMNS`."""
    names = [re.sub(r"_?\d+$", "", name.strip().lower()) for name in header]
    firsts = [next((name for name in known if name in names), None) for known in COLUMNS.values()]
    columns = [[n for n, name in enumerate(names) if name == first] for first in firsts]
    if len(columns[0]) == 1 and columns[1] and len(columns[2]) < 2:
        return columns
    problem = f"the columns are {list(header)}: call one of them image and one caption"
    if header and os.path.splitext(header[0].strip())[1].lower() in image_suffixes():
        problem = f"no header, but a row of {header[0]!r}: put image{separator}caption above it"
    raise UserError(f"{where}: {problem}")


def _parse_cells(columns: list[list[int]], cells: list[str], where: str) -> Iterator[CaptionRow]:
    (image,), captions, split = columns
    if not cells[image].strip():
        raise UserError(f"{where}: the image has no name")
    texts = [cells[number] for number in captions]
    if len(texts) > 1:  # an image may have fewer than others
        texts = [text for text in texts if text.strip()] or [""]
    named_split = _parse_split(cells[split[0]], where) if split else None
    for text in texts:
        yield CaptionRow(cells[image], text, named_split, where)


def read_json(path: Path, forms: list[str]) -> Iterator[CaptionRow]:
    """Read Karpathy's JSON (2015), whose "restval" counts as train, or COCO's captions (2015)."""
    try:
        content = json.loads(_read_text(path)[0])
        images, is_coco = list(content["images"]), "annotations" in content
        if is_coco:
            sentences: dict[Any, list[Any]] = {image["id"]: [] for image in images}
            if len(sentences) < len(images):
                raise UserError(f"{path}: two of its images have one id")
            for annotation in content["annotations"]:
                sentences[annotation["image_id"]].append({"raw": annotation["caption"]})
            names = ((image["file_name"], sentences[image["id"]]) for image in images)
            images = [{"filename": name, "sentences": captions} for name, captions in names]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except (KeyError, TypeError, RecursionError):
        problem = "no list `images`, or an annotation without its image or caption"
        raise UserError(f"{path}: not Karpathy's JSON or COCO's captions: {problem}") from None
    forms.append(f"{path}: {'COCO' if is_coco else 'Karpathy'}'s JSON")
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


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place (`path:number`) and text of each line that is not blank."""
    # Not splitlines, which also breaks at characters that a caption may hold (U+2028).
    for number, line in enumerate(_read_text(path)[0].split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line.removesuffix("\r")


def _parse_split(name: str, where: str) -> str | None:
    try:
        return SPLIT_NAMES[name.strip().lower()]
    except KeyError:
        raise UserError(f"{where}: no split is called {name!r}: type train, val or test") from None


def _read_text(path: Path) -> tuple[str, str]:
    """Return a text and its encoding: UTF-8, or UTF-16 that begins with a byte order mark."""
    content = path.read_bytes()
    encoding = "UTF-16" if content.startswith(UTF16_MARKS) else "UTF-8"
    try:
        return content.decode(encoding).removeprefix("\ufeff"), encoding
    except UnicodeDecodeError as error:
        number = len((content[: error.start] + b"-").splitlines())
        line = content.splitlines()[number - 1].decode("cp1252", "replace")[:60]
        raise UserError(
            f"{path}:{number}: not {encoding}; in cp1252 it reads {line!r}: save the file as UTF-8 "
            "(Excel: CSV UTF-8)"
        ) from None
