"""Layouts: the caption files of a data folder enter, rows leave, one a caption.

Four layouts are known; `find_captions` recognises them. Next: readers.py folds rows into records.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from captioning.data.records import UserError

LAYOUTS = {  # where the captions of each are; the first pattern that is there counts
    "flickr8k": ("Flickr8k_text/Flickr8k.token.txt", "Flickr8k.token.txt"),
    "kaggle": ("captions.txt",),
    "karpathy": ("dataset.json", "dataset_*.json"),
    "csv": ("captions.csv", "*.csv"),
}
EXPLAINED = """A folder is read that holds pictures (in Flicker8k_Dataset/, Images/ or itself) and
  flickr8k  Flickr8k_text/: Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt
  kaggle    captions.txt with the columns image,caption
  karpathy  dataset.json or dataset_NAME.json
  csv       captions.csv with the columns image,caption and, if wanted, split"""
SPLIT_NAMES = {"": None, "train": "train", "restval": "train", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "dev", "valid", "validation"), "val")


class Row(NamedTuple):
    """One caption as a file has it, and where; `caption` is None where only a split is given."""

    image: str
    caption: str | None
    split: str | None
    where: str


def find_captions(root: Path, layout: str) -> tuple[str, Path]:
    """Return the layout of a folder and the file with its captions.

    Raises UserError where there is none, or more than one and no rule to prefer it.
    """
    if layout not in ("auto", *LAYOUTS):
        raise UserError(f"no layout is called {layout!r}: type data.layout=auto")
    found = {name: files for name in LAYOUTS if (files := _caption_files(root, name))}
    if layout != "auto":
        found = {name: files for name, files in found.items() if name == layout}
    elif len(found) > 1:
        found.pop("csv", None)  # a stray table, beside a layout with a name of its own
    if not found:
        raise UserError(_nothing_found(root, layout))
    if len(found) > 1:
        files = " and ".join(f"{files[0].name} ({name})" for name, files in found.items())
        choice = next(iter(found))
        raise UserError(
            f"{root} holds {files}: choose with data.layout={choice} (verify: --layout {choice})"
        )
    layout, files = found.popitem()
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{root} holds {names}: rename the one to read {LAYOUTS[layout][0]}")
    return layout, files[0]


def _caption_files(root: Path, layout: str) -> list[Path]:
    for pattern in LAYOUTS[layout]:
        files = [file for file in sorted(root.glob(pattern)) if not file.name.startswith(".")]
        if files:
            return files
    return []


def _nothing_found(root: Path, layout: str) -> str:
    if root.is_dir():
        entries = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())
        more = f", … ({len(entries):,} in all)" if len(entries) > 8 else ""
        known = "any known layout" if layout == "auto" else f"the layout {layout}"
        found = f"{root} is not in {known}; it holds {', '.join(entries[:8]) or 'nothing'}{more}"
        for path in sorted(path for path in root.iterdir() if path.is_dir()):
            if any(_caption_files(path, name) for name in LAYOUTS):
                found += f"; is it {path}?"
                break
    else:
        found = f"{root} is not a folder"
    target = "data/flickr8k" if root.exists() else root
    return (
        f"{found}\n{EXPLAINED}\nTo get Flickr8k: python -m captioning.download flickr8k {target}\n"
        "To need no files at all, train with data=scenes"
    )


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
    for name in ("train", "dev", "test"):
        file = f"Flickr_8k.{name}Images.txt"
        paths = [path for path in (root / "Flickr8k_text" / file, root / file) if path.is_file()]
        for where, line in lines(paths[0]) if paths else ():
            yield Row(line.strip(), None, SPLIT_NAMES[name], where)


def read_csv(path: Path) -> Iterator[Row]:
    """Read a table with the columns image,caption[,split]; others are ignored.

    The csv module and not pandas: every cell stays text ("None", "NA"), every row knows its line.
    """
    table = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(table, [])]
        if not {"image", "caption"} <= set(header):
            raise UserError(f"{path}:1: the columns are not image,caption[,split]: {header}")
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
