"""Find the caption files of a data folder: which are read, in which layout, and which are not.

layouts.py reads a single file. Tables that share the captions of a data set by split are one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from captioning import UserError
from captioning.data.layouts import READERS, SPLIT_LIST, SPLIT_NAMES, Row, read_split_lists

LAYOUTS = {  # where the captions of each are; the first pattern that is there counts
    "flickr8k": ("Flickr8k_text/Flickr8k.token.txt", "Flickr8k.token.txt"),
    "kaggle": ("captions.txt",),
    "karpathy": ("dataset.json", "dataset_*.json"),
    "csv": ("captions.csv", "*.csv", "*/captions.csv", "*/*.csv"),
}
EXPLAINED = """A folder is read that holds pictures (in Flicker8k_Dataset/, Images/ or itself) and
  flickr8k  Flickr8k_text/: Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt
  kaggle    captions.txt with the columns image,caption
  karpathy  dataset.json or dataset_NAME.json
  csv       captions.csv with the columns image,caption and, if wanted, split; or such a table
            a split: train.csv, val.csv and test.csv, or one in each of train/, val/ and test/"""
SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|dev|valid|validation|test)(?![a-z])", re.IGNORECASE)
TABLE = re.compile(
    rf".*\.(csv|tsv|jsonl)|.*(captions|token|dataset).*\.(txt|json)|{SPLIT_LIST.pattern}",
    re.I | re.S,
)
WITH_LISTS = ("flickr8k", "kaggle")  # the layouts to which the official split lists belong


class CaptionFiles(NamedTuple):
    """The tables of a folder that are read, each with the split that its name gives, or None.

    `unread` names the other tables that are there, each with how to read it instead.
    """

    root: Path
    layout: str
    tables: dict[Path, str | None]
    unread: list[str]

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all tables. Raises UserError where a row contradicts its table."""
        for path, split in self.tables.items():
            folder = path.parent.name if split and path.parent != self.root else ""
            rows = READERS[self.layout](path)
            yield from (_in_split(row, split, folder) for row in rows) if split else rows
        if self.layout in WITH_LISTS:
            yield from read_split_lists(self.root)


def find_captions(root: Path, layout: str) -> CaptionFiles:
    """Return the files of a folder that hold its captions.

    A layout with a file name of its own comes before other tables, and captions.csv before those.
    Raises UserError where there is none, or more than one and no rule to prefer it.
    """
    if layout not in ("auto", *LAYOUTS):
        raise UserError(f"no layout is called {layout!r}: type data.layout=auto")
    files = _list_tables(root)
    found = {name: tables for name in LAYOUTS if (tables := _tables(root, name, files))}
    chosen = {name: tables for name, tables in found.items() if layout in ("auto", name)}
    if len(chosen) > 1:
        chosen.pop("csv", None)
    if not chosen:
        raise UserError(_nothing_found(root, layout))
    if len(chosen) > 1:
        files = " and ".join(
            f"{next(iter(tables)).name} ({name})" for name, tables in chosen.items()
        )
        choice = next(iter(chosen))
        raise UserError(
            f"{root} holds {files}: choose with data.layout={choice} (verify: layout={choice})"
        )
    layout, tables = chosen.popitem()
    if len(tables) > 1 and None in tables.values():
        names = ", ".join(str(file.relative_to(root)) for file in tables)
        raise UserError(
            f"{root} holds {names}: rename the one to read {LAYOUTS[layout][0]}; as the others are "
            "not read then, first join what belongs together, or call it train.csv and val.csv"
        )
    return CaptionFiles(root, layout, tables, _unread(root, layout, found, files))


def _in_split(row: Row, split: str, folder: str) -> Row:
    """Return a row as of the split that its table's name or folder gives."""
    if row.split not in (None, split):
        raise UserError(
            f"{row.where}: the split is {row.split}, but the table is of {split} by its name: "
            "take the row to another table or leave its split empty"
        )
    return row._replace(split=split, image=os.path.join(folder, row.image))


def _list_tables(root: Path) -> list[Path]:
    """Return the files of a folder and of those in it that may hold captions, by their names.

    Not the texts beside images, of which there may be as many as images.
    """
    folders = [root, *(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    return [
        Path(folder, entry.name)
        for folder in folders
        if os.access(folder, os.R_OK) and not folder.name.startswith(".")
        for entry in os.scandir(folder)
        if TABLE.fullmatch(entry.name) and entry.name[0] != "." and entry.is_file()
    ]


def _tables(root: Path, layout: str, files: Sequence[Path]) -> dict[Path, str | None]:
    """Return the files that would be read in a layout, with the splits of their names."""
    matching = (_matching(root, pattern, files) for pattern in LAYOUTS[layout])
    files = next(filter(None, matching), [])
    if layout != "csv":
        return dict.fromkeys(files)
    return _split_tables(root, files) or dict.fromkeys(f for f in files if f.parent == root)


def _split_tables(root: Path, files: Sequence[Path]) -> dict[Path, str | None]:
    """Return the tables whose paths differ in the split only, of two splits or more; or none."""
    sets: dict[str, dict[Path, str | None]] = {}
    for file in files:
        name = str(file.relative_to(root)).lower()
        splits = {SPLIT_NAMES[word] for word in SPLIT_WORD.findall(name)}
        if len(splits) == 1:
            sets.setdefault(SPLIT_WORD.sub("*", name), {})[file] = splits.pop()
    several = [tables for tables in sets.values() if len(set(tables.values())) > 1]
    return several[0] if len(several) == 1 else {}


def _unread(
    root: Path, layout: str, found: dict[str, dict[Path, str | None]], files: Sequence[Path]
) -> list[str]:
    """Return the other tables of a folder, each with how to read it."""
    read = found[layout]
    names = ", ".join(str(path.relative_to(root)) for path in read)
    unread = []
    for path in sorted(set(files) - read.keys()):
        if layout in WITH_LISTS and SPLIT_LIST.fullmatch(path.name):
            continue
        other = next((name for name, tables in found.items() if path in tables), layout)
        how = f"; data.layout={other} (verify: layout={other}) reads it" * (other != layout)
        unread.append(f"{path.relative_to(root)}: {names} is read instead{how}")
    return unread


def _matching(root: Path, pattern: str, files: Sequence[Path]) -> list[Path]:
    parts = pattern.lower().split("/")
    own = {file: str(file.relative_to(root)).lower().split(os.sep) for file in files}
    return sorted(
        f for f in files if len(own[f]) == len(parts) and all(map(fnmatch, own[f], parts))
    )


def _nothing_found(root: Path, layout: str) -> str:
    if root.is_dir():
        entries = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())
        more = f", … ({len(entries):,} in all)" if len(entries) > 8 else ""
        known = "any known layout" if layout == "auto" else f"the layout {layout}"
        found = f"{root} is not in {known}; it holds {', '.join(entries[:8]) or 'nothing'}{more}"
        for path in sorted(path for path in root.iterdir() if path.is_dir()):
            if any(_tables(path, name, _list_tables(path)) for name in LAYOUTS):
                found += f"; is it {path}?"
                break
    else:
        found = f"{root} is not a folder"
    target = "data/flickr8k" if root.exists() else root
    return (
        f"{found}\n{EXPLAINED}\nTo get Flickr8k: python -m captioning.download flickr8k {target}\n"
        "To need no files at all, train with data=scenes"
    )
