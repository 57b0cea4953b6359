"""Choose the caption files of a data folder: which are read, in which layout, and which are not.

Tables whose names differ only in the split, such as train.csv and val.csv, are read together.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from captioning import UserError
from captioning.data.caption_formats import READERS, SPLIT_NAMES, CaptionRow, read_split_list

LAYOUTS = {  # names of their caption files, in lower case; the first that is there counts
    "flickr8k": ("flickr8k_text/flickr8k.token.txt", "flickr8k.token.txt"),
    "kaggle": ("captions.txt",),
    "karpathy": ("dataset.json", "dataset_*.json"),
    "csv": ("captions.csv", "*.csv", "*/captions.csv", "*/*.csv"),
}
LAYOUTS_HELP = """A folder is read that holds images (in Flicker8k_Dataset/, Images/ or itself) and
  flickr8k  Flickr8k_text/: Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt
  kaggle    captions.txt with the columns image,caption
  karpathy  dataset.json or dataset_NAME.json
  csv       captions.csv with the columns image,caption and, if wanted, split; or such a table
            a split: train.csv, val.csv and test.csv, or one in each of train/, val/ and test/"""
SPLIT = "(train|val|dev|valid|validation|test)"
SPLIT_WORD = re.compile(rf"(?<![a-z]){SPLIT}(?![a-z])", re.I)
SPLIT_LIST = re.compile(rf"flickr_?8k\.{SPLIT}images\.txt", re.I)
CAPTIONS = r".*\.(csv|tsv|jsonl)|.*(captions|token|dataset).*\.(txt|json)"
TABLE = re.compile(f"{CAPTIONS}|{SPLIT_LIST.pattern}", re.I | re.S)

Tables = dict[Path, str | None]  # files, each with the split that its name gives, or None


class CaptionFiles(NamedTuple):
    """The tables and split lists of a folder; `unread` names the other tables."""

    root: Path
    layout: str
    tables: Tables
    split_lists: Tables
    unread: list[str]

    def rows(self) -> Iterator[CaptionRow]:
        """Yield all rows. Raises UserError if a split contradicts the name of its table."""
        for path, split in self.tables.items():
            folder = path.parent.name if split and path.parent != self.root else ""
            for row in READERS[self.layout](path):
                if split and row.split not in (None, split):
                    raise UserError(
                        f"{row.where}: the split is {row.split}, but the table is of {split} by "
                        "its name: take the row to another table or leave its split empty"
                    )
                image = os.path.join(folder, row.image)
                yield row._replace(image=image, split=split or row.split)
        for path, split in self.split_lists.items():
            yield from read_split_list(path, split)


def find_captions(root: Path, layout: str) -> CaptionFiles:
    """Return the caption files of a folder.

    A layout with a file name of its own comes before other tables, and captions.csv before those.
    Raises UserError if there is none, or more than one and no rule to prefer it.
    """
    if layout not in ("auto", *LAYOUTS):
        raise UserError(f"no layout is called {layout!r}: type data.layout=auto")
    files = _list_tables(root)
    layouts = LAYOUTS if layout == "auto" else [layout]
    by_layout = {name: tables for name in layouts if (tables := _match_tables(root, name, files))}
    if not by_layout:
        raise UserError(_explain_unknown(root, layout))
    if len(by_layout) > 1:
        by_layout.pop("csv", None)  # whose names are the least telling
    if len(by_layout) > 1:
        names = " and ".join(f"{next(iter(group)).name} ({n})" for n, group in by_layout.items())
        layout = next(iter(by_layout))
        how = f"data.layout={layout} (verify: layout={layout})"
        raise UserError(f"{root} holds {names}: choose with {how}")
    ((layout, tables),) = by_layout.items()
    names = ", ".join(str(path.relative_to(root)) for path in tables)
    if len(tables) > 1 and None in tables.values():
        raise UserError(
            f"{root} holds {names}: rename the one to read {LAYOUTS[layout][0]}; as the others are "
            "not read then, first join what belongs together, or call it train.csv and val.csv"
        )
    lists = _match_split_lists(root, files) if layout in ("flickr8k", "kaggle") else {}
    unread = sorted(set(files) - tables.keys() - lists.keys())
    notes = [f"{path.relative_to(root)}: {names} is read instead" for path in unread]
    return CaptionFiles(root, layout, tables, lists, notes)


def _list_tables(root: Path) -> list[Path]:
    """Return the files of a folder and its subfolders whose names are those of tables."""
    folders = [root, *(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    return sorted(
        Path(folder, entry.name)
        for folder in folders
        if os.access(folder, os.R_OK) and not folder.name.startswith(".")
        for entry in os.scandir(folder)
        if TABLE.fullmatch(entry.name) and entry.name[0] != "." and entry.is_file()
    )


def _match_tables(root: Path, layout: str, files: Sequence[Path]) -> Tables:
    """Return the files that would be read in a layout, by the first pattern that matches any."""
    names = {path: path.relative_to(root).as_posix().lower() for path in files}
    for pattern in LAYOUTS[layout]:
        matching = [
            path
            for path, name in names.items()
            if name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)
        ]
        if matching and layout == "csv":
            in_root = dict.fromkeys(path for path in matching if path.parent == root)
            return _match_split_tables({path: names[path] for path in matching}) or in_root
        if matching:
            return dict.fromkeys(matching)
    return {}


def _match_split_tables(names: dict[Path, str]) -> Tables:
    """Return the tables whose names differ in the split only, of two splits or more; or none."""
    groups: dict[str, Tables] = {}
    for path, name in names.items():
        splits = {SPLIT_NAMES[word] for word in SPLIT_WORD.findall(name)}
        if len(splits) == 1:
            groups.setdefault(SPLIT_WORD.sub("*", name), {})[path] = splits.pop()
    complete = [tables for tables in groups.values() if len(set(tables.values())) > 1]
    return complete[0] if len(complete) == 1 else {}


def _match_split_lists(root: Path, files: Sequence[Path]) -> Tables:
    """Return the official split lists."""
    return {
        path: SPLIT_NAMES[match[1].lower()]
        for path in files
        if path.parent == root or path.parent.name == "Flickr8k_text"
        if (match := SPLIT_LIST.fullmatch(path.name))
    }


def _explain_unknown(root: Path, layout: str) -> str:
    problem, target = f"{root} is not a folder", root
    if root.is_dir():
        entries = sorted(root.iterdir())
        shown = ", ".join(path.name + "/" * path.is_dir() for path in entries[:8]) or "nothing"
        known = "any known layout" if layout == "auto" else f"the layout {layout}"
        problem, target = f"{root} is not in {known}; it holds {shown}", "data/flickr8k"
        for path in filter(Path.is_dir, entries):
            if any(_match_tables(path, name, _list_tables(path)) for name in LAYOUTS):
                problem += f"; is it {path}?"
                break
    return (
        f"{problem}\n{LAYOUTS_HELP}\nTo get Flickr8k: python -m captioning.download flickr8k "
        f"{shlex.quote(f'folder={target}')}\nTo need no files at all, train with data=scenes"
    )
