"""What a user calls pictures: a file, a folder, a pattern or a list enters; paths leave.

Next: features/images.py reads them.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from captioning.data.records import UserError

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def find_pictures(images: str, listed: bytes = b"") -> list[str]:
    """Return the paths that `images` names, each once, in an order that does not change.

    A picture, a folder (its pictures at any depth), a pattern such as `trip/**/*.jpg`, or `-` for
    the names in `listed`, one a line or separated by NUL as `find -print0` does. Names
    that are not UTF-8 keep their bytes as `os.fsdecode` does. Raises UserError where there is
    none, and for an address.
    """
    if ADDRESS.match(images):
        raise UserError(
            f"images={images}: nothing is fetched from the network; download the pictures and "
            "name their folder"
        )
    if images == "-":
        found = _names(listed)
    elif os.path.isdir(images):
        found = _tree(images)
    elif os.path.lexists(images):
        found = [images]
    elif glob.has_magic(images):
        found = [path for path in sorted(glob.glob(images, recursive=True)) if _is_picture(path)]
    else:
        raise UserError(f"images={images}: there is no such file or folder")
    if not found:
        where = "standard input names none" if images == "-" else "none is there"
        raise UserError(
            f"images={images}: no picture, {where} ({' '.join(sorted(SUFFIXES))} are looked for)"
        )
    once: dict[str, str] = {}
    for path in found:
        once.setdefault(os.path.normpath(path), path)
    return list(once.values())


def _names(text: bytes) -> list[str]:
    names = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [os.fsdecode(name) for name in names if name.strip()]


def _tree(root: str) -> list[str]:
    def stop(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be looked into: {error.strerror}")

    found = []
    for folder, folders, files in os.walk(root, onerror=stop):
        folders.sort()
        found += [str(Path(folder, name)) for name in sorted(files) if _is_picture(name)]
    return found


def _is_picture(path: str) -> bool:
    name = os.path.basename(path)  # macOS keeps what its disks cannot in ._photo.jpg
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("._")
