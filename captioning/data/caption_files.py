"""Choose the caption files of a data folder: which are read, in which layout, and which are not.

Tables whose names differ only in the split, such as train.csv and val.csv, are read together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from captioning import UserError
from captioning.data import caption_formats as formats
from captioning.data.caption_formats import SPLIT_NAMES, CaptionRow
from captioning.data.image_list import list_images

TABLE_NAMES = ("captions", "metadata", "*")  # of .csv, .tsv and .jsonl
LAYOUTS = {  # the reader, and names of caption files in lower case; the first that is there counts
    "flickr8k": (formats.read_flickr8k, "flickr8k_text/flickr8k.token.txt", "flickr8k.token.txt"),
    "kaggle": (formats.read_table, "captions.txt"),
    "karpathy": (formats.read_json, "dataset.json", "dataset_*.json"),
    "coco": (formats.read_json, "captions.json", "*captions_*.json", "annotations/*.json"),
    "csv": (formats.read_table, *(f"{at}{name}.csv" for at in ("", "*/") for name in TABLE_NAMES)),
    "sidecar": (formats.read_sidecar,),  # read where there is nothing else
}
LAYOUTS_HELP = """A folder is read that holds images (in Flicker8k_Dataset/, Images/ or itself) and
  flickr8k  Flickr8k_text/: Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt
  kaggle    captions.txt with the columns image,caption
  karpathy  dataset.json or dataset_NAME.json
  coco      annotations/: captions_train2017.json and captions_val2017.json, or one of them
  csv       captions.csv or metadata.jsonl with image,caption and, if wanted, split; or such a table
            a split: train.csv, val.csv and test.csv, or one in each of train/, val/ and test/
  sidecar   photo.txt beside photo.jpg"""
SPLIT = "(train|val|dev|valid|validation|test)"
SPLIT_WORD = re.compile(rf"(?<![a-z]){SPLIT}(?![a-z])", re.I)
SPLIT_LIST = re.compile(rf"flickr_?8k\.{SPLIT}images\.txt", re.I)
CAPTIONS = r".*\.(csv|tsv|jsonl)|.*(captions|token|dataset).*\.(txt|(?<!\.job\.)json)"
TABLE = re.compile(f"{CAPTIONS}|{SPLIT_LIST.pattern}", re.I | re.S)

Tables = dict[Path, str | None]  # files, each with the split that its name gives, or None


class CaptionFiles(NamedTuple):
    """The tables and split lists of a folder; `unread` names the other tables."""

    root: Path
    layout: str
    tables: Tables
    split_lists: Tables
    unread: list[str]

    def rows(self, forms: list[str]) -> Iterator[CaptionRow]:
        """Yield all rows, and add to `forms` how each file is read.

        Raises UserError if a split contradicts the name of its table.
        """
        if self.layout == "sidecar":
            forms.append(f"{len(self.tables):,} texts beside images, each one caption")
        for path, split in self.tables.items():
            folder = ""
            if self.layout == "coco":
                folder = path.stem.rpartition("_")[2]  # train2017 of captions_train2017.json
                folder *= (self.root / folder).is_dir()
            elif self.layout in ("csv", "sidecar") and path.parent != self.root:
                folder = path.parent.relative_to(self.root)
            for row in LAYOUTS[self.layout][0](path, forms):
                if split and row.split not in (None, split):
                    raise UserError(
                        f"{row.where}: the split is {row.split}, but the table is of {split} by "
                        "its name: take the row to another table or leave its split empty"
                    )
                # Bytes that are no UTF-8 stop here: ids go into tables, pages and checkpoints.
                image = os.path.join(folder, row.image).encode(errors="backslashreplace").decode()
                yield row._replace(image=image, split=split or row.split)
        for path, split in self.split_lists.items():
            for where, line in formats.read_lines(path):
                yield CaptionRow(line.strip(), None, split, where)


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
    if not by_layout and layout in ("auto", "sidecar"):
        by_layout = {"sidecar": tables} if (tables := _match_sidecars(root)) else {}
    if not by_layout:
        raise UserError(_explain_unknown(root, layout))
    for least_telling in ("csv", "coco"):
        if len(by_layout) > 1:
            by_layout.pop(least_telling, None)
    if len(by_layout) > 1:
        names = " and ".join(f"{next(iter(group)).name} ({n})" for n, group in by_layout.items())
        layout = next(iter(by_layout))
        how = f"data.layout={layout} (verify: layout={layout})"
        raise UserError(f"{root} holds {names}: choose with {how}")
    ((layout, tables),) = by_layout.items()
    names = ", ".join(str(path.relative_to(root)) for path in tables)
    if layout == "sidecar":
        names = "the text beside each image"
    elif len(tables) > 1 and None in tables.values():
        raise UserError(
            f"{root} holds {names}: rename the one to read {LAYOUTS[layout][1]} or take the others "
            "away, which are not read then; first join what belongs together, or call it train.csv "
            "and val.csv"
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
    if layout == "csv":
        names = {path: re.sub(r"\.(tsv|jsonl)$", ".csv", name) for path, name in names.items()}
    for pattern in LAYOUTS[layout][1:]:
        matching = [
            path
            for path, name in names.items()
            if name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)
        ]
        tables = dict.fromkeys(matching)
        if layout in ("csv", "coco"):
            in_root = tables if "*/" not in pattern else {}
            tables = _match_split_tables({path: names[path] for path in matching}) or in_root
        if tables:
            return tables
    return {}


def _match_sidecars(root: Path) -> Tables:
    """Return the images that have a text beside them. Raises UserError if two share one."""
    owners: dict[str, str] = {}
    for image in list_images(root)[0] if root.is_dir() else []:
        text = formats.text_path(image)
        if os.path.isfile(text) and owners.setdefault(text, image) != image:
            raise UserError(f"{text} is of {owners[text]} or {image}: rename the other image")
    return dict.fromkeys(map(Path, owners.values()))


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
    problem = f"{root} is not a folder"
    if root.is_dir():
        entries = sorted(root.iterdir())
        shown = ", ".join(path.name + "/" * path.is_dir() for path in entries[:8]) or "nothing"
        known = "any known layout" if layout == "auto" else f"the layout {layout}"
        problem = f"{root} is not in {known}; it holds {shown}"
        for path in filter(Path.is_dir, entries):
            if any(_match_tables(path, name, _list_tables(path)) for name in LAYOUTS):
                problem += f"; is it {path}?"
                break
    return (
        f"{problem}\n{LAYOUTS_HELP}\nTo get Flickr8k: python -m captioning.download flickr8k "
        "data/flickr8k\nTo need no files at all, train with data=scenes"
    )
