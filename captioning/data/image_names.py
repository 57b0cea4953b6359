"""Find the file that an image name in a table or list means, by exactly that name or nearly so.

A Mac decomposes letters, Windows ignores case, tables keep the folders of another machine or leave
out the ending.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from captioning.data.caption_formats import CaptionRow
from captioning.data.image_list import image_suffixes

# Folders in the data folder that names leave out; the first is spelt so by its authors.
IMAGE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
IMAGE_FOLDERS += ("Images", "images")


class NameMatch(NamedTuple):
    """The file that an image name means, or None."""

    path: str | None
    note: str = ""  # which file is near, where none has exactly that name


class ImageFinder:
    """Finds image files of a data folder, `paths`, by name.

    `any_folder` ignores the folders in names, as they may be those of another machine.
    """

    def __init__(self, root: Path, paths: Iterable[str], any_folder: bool = False):
        self.root = root
        self.root_name = root.resolve().name
        self.any_folder = any_folder
        self.paths = set(map(os.path.normpath, paths))
        self.image_folders = set(map(_fold, IMAGE_FOLDERS))

    @functools.cached_property
    def folders(self) -> list[Path]:
        """The folders that exact names start from."""
        names = os.listdir(self.root)  # not is_dir(): on a Mac, Images/ is images/ too
        return [self.root, *(self.root / name for name in IMAGE_FOLDERS if name in names)]

    def match_names(self, rows: Mapping[str, Sequence[CaptionRow]]) -> dict[str, NameMatch]:
        """Return the file of each image name; `rows` are the rows by name.

        A file that two names with captions come near stays with the one that has it exactly, as an
        image of the other may be missing. Slashes and Unicode form make no difference.
        """
        matches = {name: NameMatch(self._find_exact(name)) for name in rows}
        missing = [name for name, match in matches.items() if match.path is None]
        if not missing:
            return matches
        matches |= {name: self.match_near(name) for name in missing}
        captioned: dict[str, list[str]] = {}
        for name, (path, _) in matches.items():
            if path and any(row.caption is not None for row in rows[name]):
                captioned.setdefault(path, []).append(name)
        for path, names in captioned.items():
            exact = {canonical(name) for name in names if not matches[name].note}
            for name in names:
                others = (other for other in names if canonical(other) != canonical(name))
                other = next(others, None)
                if other and canonical(name) not in exact:
                    where = f"which is named {other} at {rows[other][0].where}"
                    matches[name] = NameMatch(None, f"near is {self._relative(path)}, {where}")
        return matches

    def _find_exact(self, name: str) -> str | None:
        names = dict.fromkeys((name, name.replace("\\", "/"), name.strip()))
        paths = [os.path.normpath(os.path.join(f, name)) for f in self.folders for name in names]
        listed = next((path for path in paths if path in self.paths), None)  # spares most isfile
        path = listed or next(filter(os.path.isfile, paths), None)
        if path and (not listed or os.path.islink(path)):
            return self._by_target.get(os.path.realpath(path), path)
        return path

    @functools.cached_property
    def _by_target(self) -> dict[str, str]:
        """The images by what they are links to: of several the file itself, or the first link."""
        paths = sorted(self.paths, key=lambda path: (os.path.islink(path), path), reverse=True)
        return {os.path.realpath(path): path for path in paths}

    @functools.cached_property
    def _index(self) -> dict[tuple[str, str], list[str]]:
        """The images by any run of their folders, and by `_name_keys`."""
        index: dict[tuple[str, str], list[str]] = {}
        for path in sorted(self.paths):
            folder, base = os.path.split(self._relative(path))
            parts = _fold(folder).split("/")
            ends = range(len(parts) + 1)
            for run in {"/".join(parts[start:end]) for start in ends for end in ends[start:]}:
                for key in _name_keys(base):
                    index.setdefault((run, key), []).append(path)
        return index

    @functools.cached_property
    def _runs(self) -> set[str]:
        return {run for run, _ in self._index}

    def match_near(self, name: str) -> NameMatch:
        """Return the one file that `name` can mean where no file has exactly that name.

        The file is in the folder that the name gives or below it, of the same ending if there is
        one. A name may also have folders that are not there in front of the file's: all of them
        for a path of another machine.
        """
        _, drive, path = name.strip().replace("\\", "/").rpartition(":/")  # C:/ or https://
        *folders, base = path.split("/")
        folders = [folder for folder in folders if folder not in ("", ".", "..")]
        if self.root_name in folders:  # as typed beside the data folder, not in it
            below = (*folders[folders.index(self.root_name) + 1 :], base)
            if (path_below := os.path.normpath(os.path.join(self.root, *below))) in self.paths:
                return NameMatch(path_below, f"is {os.path.join(*below)}")
        tails = ["/".join(folders[start:]) for start in range(len(folders) + 1)]
        keys = ((tail, (_fold(tail), key)) for tail in tails for key in _name_keys(base))
        tail, key = next((pair for pair in keys if pair[1] in self._index), ("", None))
        if key is None:
            return NameMatch(None)
        near = [self._relative(path) for path in self._index[key][:2]]
        if len(near) > 1:
            return NameMatch(None, f"it can be {' or '.join(near)}")
        folder = _fold(os.path.dirname(near[0]))
        first, _, rest = folder.partition("/")
        in_folder = _fold(tail) in (folder, rest if first in self.image_folders else folder)
        dropped = tails[: tails.index(tail)]  # the last has one folder more than the file
        is_foreign = self.any_folder or drive or path.startswith(("/", "../"))
        if dropped and (_fold(dropped[-1]) in self._runs or not (is_foreign or in_folder)):
            return NameMatch(None, f"near is {near[0]}")
        return NameMatch(self._index[key][0], f"is {near[0]}")

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)


_compose = functools.partial(unicodedata.normalize, "NFC")


def canonical(name: str) -> str:
    """Return a name with forward slashes, its letters composed (Unicode NFC)."""
    return _compose(name.replace("\\", "/"))


def _fold(text: str) -> str:
    return _compose(_compose(text).casefold())


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in image_suffixes() else name


def _name_keys(base: str) -> tuple[str, str]:
    """Return the keys of a name in the index: with its ending, and with any."""
    return _fold(base), f"{_fold(_stem(base))}.*"
