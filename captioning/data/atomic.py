"""Write files so that a killed process leaves a whole one or none."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` when the block ends."""
    name = os.fsencode(path.name + ".tmp")
    if len(name) > 255:  # bytes, the most that common file systems take
        name = hashlib.sha256(name).hexdigest().encode() + b".tmp"
    temporary = path.with_name(os.fsdecode(name))
    yield temporary
    os.replace(temporary, path)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a whole text file, or none."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
