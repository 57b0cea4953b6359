"""Match image names in tables and lists to files that are named nearly so.

Names change on their way: a Mac takes letters apart, Windows ignores case, tables keep the folders
of another machine or leave out the ending. readers.py asks here where no file has the exact name.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from captioning.data.image_list import image_suffixes

MANY = 9  # so many files are not told apart for one name: it would take quadratic time
RESPECTS = ("", "Unicode form", "case", "ending", "folder")  # in which names differ, least first


class Match(NamedTuple):
    """The file that an image name means, or None; `reason` is the difference, or why it is None.

    `reason` is empty for a file of exactly that name, and where no file comes near.
    """

    path: str | None
    reason: str = ""


class NameIndex:
    """Image files by any run of their folders and by stem, their name without its ending.

    `image_folders` are those below `root` that names leave out.
    """

    def __init__(self, root: str, paths: Iterable[str], image_folders: Sequence[str]):
        self.root = root
        self.image_folders = {_fold(folder) for folder in image_folders}
        self.paths: dict[tuple[str, str], list[str]] = {}
        for path in sorted(paths):
            folder, base = os.path.split(os.path.relpath(path, root))
            stem, parts = _fold(_stem(base)), _fold(folder).split("/")
            ends = range(len(parts) + 1)
            for run in {"/".join(parts[start:end]) for start in ends for end in ends[start:]}:
                self.paths.setdefault((run, stem), []).append(path)
        self.folders = {run for run, _ in self.paths}

    def match(self, name: str, any_folder: bool = False) -> Match:
        """Return the one file that `name` can mean; `any_folder` ignores the folders in it.

        The file is in the folder that the name gives or below it. A name may also have folders
        that are not there in front of the file's: all of them for a path of another machine.
        """
        _, drive, path = name.replace("\\", "/").rpartition(":/")  # C:/ or https://
        *folders, base = path.split("/")
        folders = [folder for folder in folders if folder not in ("", ".", "..")]
        tails = ["/".join(folders[start:]) for start in range(len(folders) + 1)]
        stem = _fold(_stem(base))
        tail = next((tail for tail in tails if (_fold(tail), stem) in self.paths), None)
        if tail is None:
            return Match(None)
        near = self.paths[_fold(tail), stem][:MANY]
        degrees = {path: self._compare(tail, base, path) for path in near}
        least = [min(of_all) for of_all in zip(*degrees.values(), strict=True)]
        closest = [path for path in near if degrees[path] == least] or near
        if len(closest) > 1 or len(near) == MANY:
            return Match(None, f"it can be {' or '.join(map(self.below, near[:2]))}")
        left_out = tails[: tails.index(tail)]
        elsewhere = any_folder or drive or path.startswith(("/", "../"))
        in_folder = RESPECTS[least[0]] != "folder"
        words = ["folder" * bool(left_out), *(RESPECTS[degree] for degree in least)]
        reason = ", ".join(dict.fromkeys(filter(None, words)))
        if left_out and (_fold(left_out[-1]) in self.folders or not (elsewhere or in_folder)):
            return Match(None, f"near is {self.below(closest[0])}, which differs in {reason}")
        return Match(closest[0], reason)

    def below(self, path: str) -> str:
        """Return the path of a file as seen from the data folder."""
        return os.path.relpath(path, self.root)

    def _compare(self, tail: str, base: str, path: str) -> list[int]:
        """Return how much folder, name and stem of a file differ, as indices of `RESPECTS`."""
        folder, own = os.path.split(self.below(path))
        first, _, rest = folder.partition("/")
        inner = rest if _fold(first) in self.image_folders else folder
        in_folder = min(_degree(tail, folder, "folder"), _degree(tail, inner, "folder"))
        return [in_folder, _degree(base, own, "ending"), _degree(_stem(base), _stem(own), "ending")]


def canonical(name: str) -> str:
    """Return a name with slashes that lean forward, its letters composed."""
    return _compose(name.replace("\\", "/"))


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _fold(text: str) -> str:
    return _compose(_compose(text).casefold())


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in image_suffixes() else name


def _degree(text: str, other: str, otherwise: str) -> int:
    forms = enumerate((str, _compose, _fold))
    alike = (degree for degree, form in forms if form(text) == form(other))
    return next(alike, RESPECTS.index(otherwise))
