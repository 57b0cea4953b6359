"""Hashes of image files, cached on disk: a file that has not changed is not read again.

They name a feature store: features belong to an image's content, whatever its time or folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Shaped

from captioning import UserError
from captioning.data.atomic import atomic_write
from captioning.data.progress import progress_bar
from captioning.data.records import Record

ENTRY = np.dtype([("file", "S16"), ("sha256", "S32")])  # of the cache, which is sorted by file
CLOCK_TICK = 2_000_000_000  # nanoseconds, of the coarsest file system: FAT

log = logging.getLogger(__name__)


def hash_images(paths: Sequence[str], root: str | Path) -> Shaped[np.ndarray, " image"]:
    """Return the SHA-256 of each file, 32 bytes; zeros for a file that cannot be read.

    The cache lies below `root`, a file for each folder of images. Of several processes one hashes
    while the others wait. Raises UserError if a path does not exist.
    """
    start = time.time_ns()
    folder = os.path.dirname(os.path.commonprefix(paths))  # noqa: RUF071 - dirname cuts at a slash
    fingerprints = np.array([fingerprint_file(path, len(folder)) for path in paths], dtype="S16")
    name = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:16]
    cache = Path(root, f"hashes-{name}.npy")
    hashes = _look_up(fingerprints, _load(cache))
    if (hashes != b"").all():
        return hashes

    def hash_file(index: int) -> tuple[bytes, bytes]:
        path = paths[index]
        if not os.path.isfile(path):  # a named pipe would be waited for
            return b"", b""
        try:
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").digest()
                stat = os.fstat(file.fileno())
        except OSError:  # the encoder will report why
            return b"", b""
        # A change within the same tick of the clock would not show: such a file is not cached.
        is_settled = max(stat.st_mtime_ns, stat.st_ctime_ns) < start - CLOCK_TICK
        return _fingerprint(path[len(folder) :], stat) if is_settled else b"", sha256

    with suppress(OSError):  # a folder that cannot be written to costs time, not the run
        cache.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{cache}.lock") if os.access(cache.parent, os.W_OK) else nullcontext()
    with lock, ThreadPool(os.cpu_count()) as pool:
        hashes = _look_up(fingerprints, _load(cache))  # another process may have hashed them
        missing = np.flatnonzero(hashes == b"")
        entries = pool.imap(hash_file, missing.tolist(), chunksize=16)
        bar = progress_bar(entries, "hashing", len(missing), unit="img", mininterval=1, delay=2)
        new = np.array(list(bar), dtype=ENTRY)
        hashes[missing] = new["sha256"]
        _save(cache, new[new["file"] == fingerprints[missing]])
    return hashes


def hash_inputs(identity: dict[str, Any], records: Sequence[Record], root: str | Path) -> str:
    """Hash an encoder's identity, the id of each image and the SHA-256 of its bytes."""
    digest = hashlib.sha256(f'{{"encoder": {json.dumps(identity, sort_keys=True)}, '.encode())
    digest.update(b'"images": [')
    for record in records:
        digest.update(f"{json.dumps(record.image_id)}, ".encode())
    digest.update(hash_images([record.path for record in records], root).tobytes())
    return digest.hexdigest()[:16]


def fingerprint_file(path: str, start: int = 0) -> bytes:
    """Return 16 bytes that change whenever the file does, by one stat and without reading it.

    They also depend on `path[start:]`. Raises UserError if there is no such file.
    """
    try:
        return _fingerprint(path[start:], os.stat(path))
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened ({error.strerror}); is data.root right?"
        ) from None


def _fingerprint(path: str, stat: os.stat_result) -> bytes:
    # mv and unzip keep the time of modification. They change st_ctime, but not if a whole folder
    # or a link is exchanged: then the inode differs.
    numbers = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    text = f"{numbers} {path}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _look_up(fingerprints: np.ndarray, cached: np.ndarray) -> np.ndarray:
    """Return the cached hashes of these files, zeros for those that are not cached."""
    hashes = np.zeros(len(fingerprints), dtype="S32")
    if len(cached):
        files = np.ascontiguousarray(cached["file"])
        index = np.searchsorted(files, fingerprints).clip(max=len(files) - 1)
        is_cached = files[index] == fingerprints
        hashes[is_cached] = cached["sha256"][index[is_cached]]
    return hashes


def _load(cache: Path) -> np.ndarray:
    with suppress(Exception):  # NumPy's errors for a damaged file have no common class
        cached = np.load(cache)
        if cached.dtype == ENTRY and cached.ndim == 1:
            return cached
    return np.zeros(0, dtype=ENTRY)


def _save(cache: Path, new: np.ndarray) -> None:
    cached = np.concatenate([new, _load(cache)])
    cached = cached[np.unique(cached["file"], return_index=True)[1]]
    try:
        with atomic_write(cache) as temporary, temporary.open("wb") as file:
            np.save(file, cached)
    except OSError as error:
        log.warning("%s: %s; the next start reads all images again", cache, error.strerror)
