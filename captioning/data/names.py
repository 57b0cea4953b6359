"""Match image names in tables and lists to files that are named nearly so.

Names change on their way: a Mac takes letters apart, Windows ignores case and writes backslashes,
tables keep the folders of another machine or leave out the ending. readers.py asks here where no
file has exactly the name that is written.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations, islice
from typing import NamedTuple

from captioning.data.pictures import image_suffixes

MANY = 8  # more candidates than that are not told apart
DRIVE = re.compile(r"[a-z][a-z0-9+.-]*:(?=[/\\])", re.IGNORECASE)  # or the scheme of an address


class Match(NamedTuple):
    """The file that an image name means, or None; `reason` is the difference, or why it is None.

    `reason` is empty for a file of exactly that name, and where no file comes near.
    """

    path: str | None
    reason: str = ""


class NameIndex:
    """Image files by what people keep of their names.

    `paths` are normalised and below `root`; `image_folders` are those that names leave out.
    Building and asking take time in proportion to the number of files and of names.
    """

    def __init__(self, root: str, paths: Iterable[str], image_folders: Sequence[str]):
        self.root = os.path.join(os.path.normpath(root), "")
        self.image_folders = {_fold(folder) for folder in image_folders}
        self.files: dict[str, list[str]] = {}  # by file name without ending
        for path in sorted(paths):
            own = path.removeprefix(self.root)
            stem = os.path.splitext(os.path.basename(own))[0]
            self.files.setdefault(_fold(stem), []).append(own)
        folders = {os.path.dirname(own) for files in self.files.values() for own in files}
        self.folders = {part for folder in folders for part in _parts_of(folder)}
        self._nested: dict[str, dict[str, list[str]]] = {}

    def match(self, name: str, any_folder: bool = False) -> Match:
        """Return the one file that `name` can mean; `any_folder` ignores the folders in it.

        The file is in the folder that the name gives or below it. A name may also have folders
        that are not there in front of the file's: all of them for a path of another machine.
        """
        folders, base, absolute = split_name(name)
        stems = dict.fromkeys(_fold(text) for text in (base, _split_ending(base)[0]))
        tails = [_fold("/".join(folders[at:])) for at in range(len(folders) + 1)]
        for tail in tails:
            below = (own for stem in stems for own in self._below(stem).get(tail, ()))
            if files := list(islice(below, MANY + 1)):
                break
        else:
            return Match(None)
        best = _closest(files, base, tail) if 1 < len(files) <= MANY else files
        if len(best) > 1:
            return Match(None, f"it can be {' or '.join(best[:2])}")
        own = best[0]
        left_out = tails[: tails.index(tail)]
        folder = _fold(os.path.dirname(own))
        first, _, rest = folder.partition("/")
        alone = {folder, rest if first in self.image_folders else folder}
        anywhere = absolute or any_folder or tail in alone
        if left_out and (not anywhere or any(tail in self.folders for tail in left_out)):
            return Match(None, f"near is {own}, which differs in {_difference(name, own, alone)}")
        return Match(self.root + own, _difference(name, own, alone))

    def _below(self, stem: str) -> dict[str, list[str]]:
        """Return the files of a stem by every run of the folders that they are in."""
        if stem not in self._nested:
            nested = self._nested[stem] = {}
            for own in self.files.get(stem, ()):
                for part in _parts_of(os.path.dirname(own)):
                    nested.setdefault(part, []).append(own)
        return self._nested[stem]


def split_name(name: str) -> tuple[list[str], str, bool]:
    """Return the folders in a name, what follows them, and whether it starts elsewhere.

    That is at a root (`/data/`, `C:\\data\\`, `https://host/`) or above (`../`).
    """
    drive = DRIVE.match(name)
    path = name[drive.end() if drive else 0 :].replace("\\", "/")
    *folders, base = path.split("/")
    absolute = path.startswith(("/", "../"))
    return [folder for folder in folders if folder not in ("", ".", "..")], base, absolute


def canonical(name: str) -> str:
    """Return a name with slashes that lean forward, its letters composed."""
    return _compose(name.replace("\\", "/"))


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    return _compose(_compose(text).casefold())


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _split_ending(name: str) -> tuple[str, str]:
    stem, ending = os.path.splitext(name)
    return (stem, ending) if ending.lower() in image_suffixes() else (name, "")


@lru_cache(2**16)
def _parts_of(folder: str) -> frozenset[str]:
    """Return all runs of the folders in a path, and the empty one."""
    names = _fold(folder).split("/") if folder else []
    return frozenset(
        {"", *("/".join(names[a:b]) for a, b in combinations(range(len(names) + 1), 2))}
    )


def _closest(files: Sequence[str], base: str, tail: str) -> list[str]:
    """Return the one file that is closest to a name in all respects, or those it may mean."""
    stem = _split_ending(base)[0]
    ranks = {}
    for own in files:
        folder, _, other = own.rpartition("/")
        ranks[own] = (
            _fold(other) == _fold(base),
            _compose(os.path.splitext(other)[0]) == _compose(stem),
            _compose(other) == _compose(base),
            _fold(folder) == tail,
        )
    highest = tuple(map(max, zip(*ranks.values(), strict=True)))
    best = [own for own, rank in ranks.items() if rank == highest]
    return best or list(files)


def _difference(name: str, own: str, own_folders: set[str]) -> str:
    """Return in which respects a name differs from a file's, whose folder may be called so."""
    folders, base, _ = split_name(name)
    stem, ending = _split_ending(base)
    own_folder, _, own_base = own.rpartition("/")
    own_stem, own_ending = os.path.splitext(own_base)
    folder, others, endings = (
        ("/".join(folders), own_folder),
        (stem, own_stem),
        (ending, own_ending),
    )
    alike = [(a, b) for a, b in (folder, others, endings) if _fold(a) == _fold(b)]
    respects = {
        "backslash": "\\" in name,
        "folder": _fold(folder[0]) not in own_folders,
        "ending": others not in alike or endings not in alike,
        "Unicode form": any(a.casefold() != b.casefold() for a, b in alike),
        "case": any(_compose(a) != _compose(b) for a, b in alike),
    }
    return ", ".join(word for word, differs in respects.items() if differs)
