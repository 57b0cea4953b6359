"""Find image files: a file, a folder, a pattern or a list enters; paths leave.

One rule for all commands: every format that Pillow decodes by itself, links followed once, hidden
files and bins left out; and what is left out is counted.
Next: image_files.py reads them.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from captioning.data.records import UserError

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Handed to programs outside (EPS to Ghostscript), only identified, or measurements of any range.
UNREAD_FORMATS = ("BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
# HEIC takes a package, JPEG has more endings than Pillow knows.
MORE_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif", ".jfi", ".jif", ".pjp", ".pjpeg")
TEXTS = (".aae", ".csv", ".json", ".jsonl", ".md", ".tsv", ".txt", ".xml", ".xmp")
LITTER = re.compile(  # hidden ones, and those of Windows, a Mac and disk stations
    r"\.[^.].*|\.\..+|\$recycle\.bin|recycle[dr]|system volume information|thumbs\.db|desktop\.ini|"
    r"__macosx|lost\+found|@eadir|[#@]recycle|#snapshot|@recently-snapshot",
    re.IGNORECASE | re.DOTALL,
)

HIDDEN = "left out: hidden files and folders, thumbnails and bins"
UNKNOWN = "left out: files of unknown kind"
LINKS = "left out: links that lead nowhere or upwards"
CLOSED = "left out: folders that cannot be opened"
LEFT_OUT = (HIDDEN, UNKNOWN, LINKS, CLOSED)
LeftOut = dict[str, list[str]]  # the paths, by reason


def find_pictures(
    images: str, listed: bytes = b"", key: str = "images"
) -> tuple[list[str], LeftOut]:
    """Return the paths that `images` names, each once, in a fixed order, and what is left out.

    An image, a folder (its images at any depth), a pattern such as `trip/**/*.jpg`, or `-` for
    the names in `listed`, one a line or separated by NUL as `find -print0` does. Names
    that are not UTF-8 keep their bytes as `os.fsdecode` does. Raises UserError where there is
    none, and for an address; it calls the argument by `key`.
    """
    if ADDRESS.match(images):
        raise UserError(
            f"{key}={images}: nothing is fetched from the network; download the images and "
            "name their folder"
        )
    left_out: LeftOut = {}
    if images == "-":
        paths = _names(listed)
    elif os.path.isdir(images):
        paths, left_out = list_images(images)
    elif os.path.lexists(images):
        paths = [images]
    elif glob.has_magic(images):
        paths, left_out = _match(images)
    else:
        raise UserError(f"{key}={images}: there is no such file or folder")
    if not paths:
        where = "standard input names none" if images == "-" else "none is there"
        reasons = "; ".join(filter(None, (where, summarize_left_out(left_out))))
        raise UserError(f"{key}={images}: no picture, {reasons}")
    return paths, left_out


def list_images(*roots: str | Path, spelt: Sequence[str] = ()) -> tuple[list[str], LeftOut]:
    """List the images below folders, at any depth, and what else is there by `LEFT_OUT`.

    Linked folders come last, and no folder is looked into twice, whatever leads to it. Text files
    are not counted. Hidden names in `spelt` are not left out.
    """
    paths, links, visited = [], [], set()
    left_out: LeftOut = {kind: [] for kind in LEFT_OUT}

    def walk(folder: str) -> None:
        if (real := os.path.realpath(folder)) in visited:
            return
        visited.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            left_out[CLOSED].append(folder)
            return
        subfolders = []
        for entry in entries:
            path, hidden = str(Path(folder, entry.name)), _is_hidden(entry.name, spelt)
            is_link = entry.is_symlink()
            if not (os.path.isdir(path) if is_link else entry.is_dir()):
                _sort_file(path, hidden, paths, left_out)
            else:
                (left_out[HIDDEN] if hidden else links if is_link else subfolders).append(path)
        for path in subfolders:
            walk(path)

    for root in roots:
        walk(str(root))
    for link in links:  # which grows
        real, places = (
            os.path.realpath(link),
            map(os.path.realpath, (os.path.dirname(link), *roots)),
        )
        upwards = any(place.startswith(os.path.join(real, "")) for place in places)
        if upwards and real not in visited:
            left_out[LINKS].append(link)
        else:
            walk(link)
    return paths, left_out


def summarize_left_out(left_out: LeftOut) -> str:
    """Say in one line how many files and folders were left out and why; "" where none was."""
    parts = []
    for kind, paths in left_out.items():
        names = map(os.path.basename, paths)
        if kind == UNKNOWN:
            names = (os.path.splitext(name)[1] or name for name in names)
        shown = list(dict.fromkeys(names))
        if shown:
            more = ", …" if len(shown) > 5 else ""
            parts.append(
                f"{kind.removeprefix('left out: ')}: {len(paths):,} ({', '.join(shown[:5])}{more})"
            )
    return f"left out: {'; '.join(parts)}" if parts else ""


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the endings, in lower case with the dot, of the formats that are read."""
    from PIL import Image  # not above: its plugins are imported when they are needed

    formats = Image.registered_extensions()
    read = {name for name in Image.OPEN if name not in UNREAD_FORMATS} | {"MPO"}  # by JPEG's reader
    return frozenset(MORE_SUFFIXES).union(end for end, name in formats.items() if name in read)


def _names(text: bytes) -> list[str]:
    once: dict[str, str] = {}
    for line in text.split(b"\0") if b"\0" in text else text.splitlines():
        if line.strip():
            once.setdefault(os.path.normpath(name := os.fsdecode(line)), name)
    return list(once.values())


def _match(pattern: str) -> tuple[list[str], LeftOut]:
    """Return the images that a pattern matches; a name or an ending that it spells out counts."""
    parts, ending = Path(pattern).parts, os.path.splitext(pattern)[1]
    if "**" in parts:  # not by glob, which follows two links that lead back 2 ** 40 times
        head = parts[: parts.index("**")]
        roots = filter(os.path.isdir, glob.glob(os.path.join(*head))) if head else ["."]
        paths, left_out = list_images(*sorted(roots), spelt=parts)
        paths = [path for path in paths if _fits(Path(path).parts, parts)]
        others = [path for path in left_out[UNKNOWN] if _fits(Path(path).parts, parts)]
    else:
        paths, left_out = [], {kind: [] for kind in LEFT_OUT}
        for path in sorted(glob.glob(pattern)):
            if not os.path.isdir(path):
                hidden = any(_is_hidden(part, parts) for part in Path(path).parts)
                _sort_file(path, hidden, paths, left_out)
        others = left_out[UNKNOWN]
    if ending and not glob.has_magic(ending):
        paths, others = sorted(paths + others), []
    return paths, left_out | {UNKNOWN: others}


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern or not parts:
        return not parts and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return fnmatch.fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _sort_file(path: str, hidden: bool, paths: list[str], left_out: LeftOut) -> None:
    suffix = os.path.splitext(path)[1].strip().lower()
    if suffix in image_suffixes():
        (left_out[HIDDEN] if hidden else paths).append(path)
    elif not hidden and suffix not in TEXTS:  # captions and the like are no loss
        dangling = os.path.islink(path) and not os.path.exists(path)
        left_out[LINKS if dangling else UNKNOWN].append(path)


def _is_hidden(name: str, spelt: Sequence[str]) -> bool:
    return LITTER.fullmatch(name) is not None and name not in spelt
