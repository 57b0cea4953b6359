"""List the image files that a path, a folder, a pattern or standard input names.

One rule for all commands: every format that Pillow decodes by itself, links followed once, hidden
files and bins left out; and what is left out is counted.
"""

from __future__ import annotations

import codecs
import functools
import glob
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from captioning import UserError
from captioning.data.photographs import find_photographs

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# HEIC takes a package, JPEG has more endings than Pillow knows.
MORE_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif", ".jfi", ".jif", ".pjp", ".pjpeg")
TEXTS = (".aae", ".csv", ".json", ".jsonl", ".lock", ".md", ".tsv", ".txt", ".xml", ".xmp")
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
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
LeftOut = dict[str, list[str]]  # the paths, by those of `LEFT_OUT` that occur


def find_images(images: str, listed: bytes = b"", key: str = "images") -> tuple[list[str], LeftOut]:
    """Return the paths that `images` names, each once, in a fixed order, and what is left out.

    `images` is an image, a folder (its images at any depth), a pattern such as `trip/**/*.jpg`, `-`
    for the names in `listed`, one per line or separated by NUL as `find -print0` does, or the word
    photographs, for those of photographs.py. Raises UserError, which calls the argument `key`,
    where there is no image, and for an address.
    """
    if ADDRESS.match(images):
        raise UserError(
            f"{key}={images}: nothing is fetched from the network; download the images and "
            "name their folder"
        )
    left_out: LeftOut = {}
    if images == "-":
        paths = _split_names(listed)
    elif os.path.isdir(images):
        paths, left_out = list_images(images)
    elif os.path.lexists(images):
        paths = [images]
    elif glob.has_magic(images):
        paths, left_out = _expand_pattern(images)
    elif images == "photographs":
        paths = find_photographs()
    else:
        raise UserError(f"{key}={images}: there is no such file or folder")
    if not paths:
        where = "standard input names none" if images == "-" else "none is there"
        reasons = "; ".join(filter(None, (where, summarize_left_out(left_out))))
        raise UserError(f"{key}={images}: no image, {reasons}")
    return paths, left_out


def list_images(root: str | Path) -> tuple[list[str], LeftOut]:
    """List the images below a folder, at any depth, and what is left out of it."""
    left_out: LeftOut = {}
    folders = _walk_folders([str(root)], left_out)
    files = [str(Path(folder, name)) for folder, names in folders for name in names]
    return _select_images(files, Path(root).parts, image_suffixes(), left_out), left_out


def _walk_folders(roots: Iterable[str], left_out: LeftOut) -> Iterator[tuple[str, list[str]]]:
    """Yield folders and the names of their files; linked folders last, no folder twice."""

    def leave_out(error: OSError) -> None:
        left_out.setdefault(CLOSED, []).append(os.path.normpath(error.filename))

    pending, visited = list(roots), set()
    for top in pending:  # which grows by links
        for folder, subfolders, files in os.walk(top, onerror=leave_out):
            real = os.path.realpath(folder)
            names, subfolders[:] = sorted(subfolders), []
            if real in visited:
                continue
            visited.add(real)
            yield folder, sorted(files)
            for name in names:
                path = os.path.join(folder, name)
                if LITTER.fullmatch(name):
                    left_out.setdefault(HIDDEN, []).append(path)
                elif not os.path.islink(path):
                    subfolders.append(name)
                elif (target := os.path.realpath(path)) not in visited:
                    upwards = real.startswith(os.path.join(target, ""))
                    (left_out.setdefault(LINKS, []) if upwards else pending).append(path)


def _select_images(
    files: Iterable[str], typed: Container[str], suffixes: Container[str], left_out: LeftOut
) -> list[str]:
    """Return the images among files, and add the others to `left_out`, but for texts.

    `typed` are names that the user wrote, which are read even where they are hidden.
    """
    images = []
    for path in files:
        suffix = os.path.splitext(path)[1].strip().lower()
        hidden = any(LITTER.fullmatch(part) for part in Path(path).parts if part not in typed)
        if suffix in suffixes and not hidden:
            images.append(path)
        elif suffix in suffixes:
            left_out.setdefault(HIDDEN, []).append(path)
        elif not hidden and suffix not in TEXTS:  # captions and the like are no loss
            left_out.setdefault(UNKNOWN if os.path.exists(path) else LINKS, []).append(path)
    return images


def format_examples(kind: str, examples: Sequence[str]) -> str:
    """Return `kind (number): ` and the first five examples."""
    rest = ", …" if len(examples) > 5 else ""
    return f"{kind} ({len(examples):,}): {', '.join(examples[:5])}{rest}"


def summarize_left_out(left_out: LeftOut) -> str:
    """Return in one line how many files and folders were left out and why; "" where none was."""
    return "; ".join(
        format_examples(kind, list(map(os.path.basename, paths)))
        for kind, paths in left_out.items()
    )


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the endings, in lower case with the dot, of the formats that are read."""
    from PIL import Image  # not above: its plugins are imported when they are needed

    from captioning.data.image_files import UNREAD_FORMATS

    formats = Image.registered_extensions()
    read = {name for name in Image.OPEN if name not in UNREAD_FORMATS} | {"MPO"}  # by JPEG's reader
    return frozenset(MORE_SUFFIXES).union(end for end, name in formats.items() if name in read)


def _split_names(listed: bytes) -> list[str]:
    """Return the names of a list, the first spelling of each path.

    Blanks and quotes around a name are left out where it is no file with them, but one without.
    """
    if listed.startswith(UTF16_MARKS):
        text = listed.decode("utf-16", "backslashreplace")
    else:
        text = os.fsdecode(listed.removeprefix(codecs.BOM_UTF8))
    names: dict[str, str] = {}
    for name in text.split("\0") if "\0" in text else re.split(r"[\r\n]+", text):
        if name.strip():
            bare = name.strip().strip('"')
            name = bare if not os.path.lexists(name) and os.path.lexists(bare) else name
            names.setdefault(os.path.normpath(name), name)
    return list(names.values())


def _expand_pattern(pattern: str) -> tuple[list[str], LeftOut]:
    """Return the images that a pattern matches; a name or an ending that it spells out counts."""
    left_out: LeftOut = {}
    parts, ending = Path(pattern).parts, os.path.splitext(pattern)[1].lower()
    folders = [""]
    if "**" in parts:  # not by glob, which follows two links that lead back 2 ** 40 times
        at = parts.index("**")
        roots = glob.glob(os.path.join("", *parts[:at], "")) if at else ["."]
        folders = [glob.escape(folder) for folder, _ in _walk_folders(sorted(roots), left_out)]
        pattern = os.path.join("", *parts[at + 1 :]) or "*"
    files = [
        str(Path(path))
        for folder in folders
        for path in sorted(glob.glob(os.path.join(folder, pattern)))
        if not os.path.isdir(path)
    ]
    suffixes = image_suffixes() | ({ending} if ending and not glob.has_magic(ending) else set())
    return _select_images(files, parts, suffixes, left_out), left_out
