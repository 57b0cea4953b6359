"""Find the file that an image name in a table or list means, by exactly that name or nearly so.

Names change on their way: a Mac decomposes letters, Windows ignores case, tables keep the folders
of another machine or leave out the ending.
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
MAX_CANDIDATES = 9  # so many files are not compared for one name: it would take quadratic time
DIFFERENCES = ("", "Unicode form", "case", "ending", "folder")  # from none to the largest


class NameMatch(NamedTuple):
    """The file that an image name means, or None.

    `reason` is how the names differ, or why none is chosen; it is empty where they are equal, and
    where no file is near.
    """

    path: str | None
    reason: str = ""


class ImageFinder:
    """Finds those image files of a data folder, `paths`, that names mean.

    `any_folder` ignores the folders in names, as they may be those of another machine.
    """

    def __init__(self, root: Path, paths: Iterable[str], any_folder: bool = False):
        self.root = root
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

        A file that two names with captions mean, which differ in more than slashes or Unicode
        form, stays with the one that has it exactly: an image of the other may be missing.
        """
        matches = {name: NameMatch(self._find_exact(name)) for name in rows}
        missing = [name for name, match in matches.items() if match.path is None]
        matches |= {name: self.match_near(name) for name in missing}
        captioned: dict[str, list[str]] = {}
        for name, (path, _) in matches.items() if missing else ():
            if path and any(row.caption is not None for row in rows[name]):
                captioned.setdefault(path, []).append(name)
        for path, names in captioned.items():
            exact = {canonical(name) for name in names if not matches[name].reason}
            for name in names:
                others = (other for other in names if canonical(other) != canonical(name))
                other = next(others, None)
                if other and canonical(name) not in exact:
                    reason = (
                        f"{matches[name].reason} and is named {other} at {rows[other][0].where}"
                    )
                    matches[name] = self._refuse(path, reason)
        return matches

    def _find_exact(self, name: str) -> str | None:
        paths = [os.path.normpath(os.path.join(folder, name)) for folder in self.folders]
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
        """The images by any run of their folders and stem (the name without its ending)."""
        index: dict[tuple[str, str], list[str]] = {}
        for path in sorted(self.paths):
            folder, base = os.path.split(self._relative(path))
            parts = _fold(folder).split("/")
            ends = range(len(parts) + 1)
            for run in {"/".join(parts[start:end]) for start in ends for end in ends[start:]}:
                index.setdefault((run, _fold(_stem(base))), []).append(path)
        return index

    @functools.cached_property
    def _runs(self) -> set[str]:
        return {run for run, _ in self._index}

    def match_near(self, name: str) -> NameMatch:
        """Return the one file that `name` can mean where no file has exactly that name.

        The file is in the folder that the name gives or below it. A name may also have folders
        that are not there in front of the file's: all of them for a path of another machine.
        """
        _, drive, path = name.replace("\\", "/").rpartition(":/")  # C:/ or https://
        *folders, base = path.split("/")
        folders = [folder for folder in folders if folder not in ("", ".", "..")]
        tails = ["/".join(folders[start:]) for start in range(len(folders) + 1)]
        stem = _fold(_stem(base))
        tail = next((tail for tail in tails if (_fold(tail), stem) in self._index), None)
        if tail is None:
            return NameMatch(None)
        near = self._index[_fold(tail), stem][:MAX_CANDIDATES]
        degrees = {path: self._compare(tail, base, path) for path in near}
        least = [min(column) for column in zip(*degrees.values(), strict=True)]
        closest = [path for path in near if degrees[path] == least] or near
        if len(closest) > 1 or len(near) == MAX_CANDIDATES:
            return NameMatch(None, f"it can be {' or '.join(map(self._relative, near[:2]))}")
        dropped = tails[: tails.index(tail)]  # the last has one folder more than the file
        is_foreign = self.any_folder or drive or path.startswith(("/", "../"))
        in_folder = DIFFERENCES[least[0]] != "folder"
        words = ["folder" * bool(dropped), *(DIFFERENCES[degree] for degree in least)]
        reason = ", ".join(dict.fromkeys(filter(None, words)))
        if dropped and (_fold(dropped[-1]) in self._runs or not (is_foreign or in_folder)):
            return self._refuse(closest[0], reason)
        return NameMatch(closest[0], reason)

    def _compare(self, tail: str, base: str, path: str) -> list[int]:
        """Return how folder, name and stem of a file differ, as indices of `DIFFERENCES`."""
        folder, own = os.path.split(self._relative(path))
        first, _, rest = folder.partition("/")
        inner = rest if _fold(first) in self.image_folders else folder
        in_folder = min(_degree(tail, folder, "folder"), _degree(tail, inner, "folder"))
        return [in_folder, _degree(base, own, "ending"), _degree(_stem(base), _stem(own), "ending")]

    def _refuse(self, path: str, reason: str) -> NameMatch:
        return NameMatch(None, f"near is {self._relative(path)}, which differs in {reason}")

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)


def canonical(name: str) -> str:
    """Return a name with forward slashes, its letters composed (Unicode NFC)."""
    return _compose(name.replace("\\", "/"))


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _fold(text: str) -> str:
    return _compose(_compose(text).casefold())


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in image_suffixes() else name


def _degree(text: str, other: str, otherwise: str) -> int:
    """Return the least of `DIFFERENCES` that makes two texts equal, or `otherwise`."""
    forms = enumerate((str, _compose, _fold))
    equal = (degree for degree, form in forms if form(text) == form(other))
    return next(equal, DIFFERENCES.index(otherwise))
