"""SHA-256 hashes of the images' bytes, kept on disk so that a second look costs a stat an image.

store.py names a feature store by them: features belong to an image's content, whatever its size,
its time or the folder that it lies in.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Shaped
from tqdm import tqdm

from captioning import UserError
from captioning.data.atomic import atomic_write

ENTRY = np.dtype([("file", "S16"), ("sha256", "S32")])
CLOCK_TICK = 2_000_000_000  # nanoseconds, of the coarsest file system: FAT

log = logging.getLogger(__name__)


def hash_images(paths: Sequence[str], root: str | Path) -> Shaped[np.ndarray, " image"]:
    """Return the SHA-256 of each file, 32 bytes; zeros for a file that cannot be read.

    The hashes are kept below `root`, in one file for each folder of images. Of several processes
    one hashes while the others wait. Raises UserError where a path does not exist.
    """
    start = time.time_ns()
    ends = [min(paths, default=""), max(paths, default="")]
    folder = os.path.dirname(os.path.commonprefix(ends))  # noqa: RUF071 - dirname cuts at a slash
    states = np.array([file_state(path, len(folder)) for path in paths], dtype="S16")
    name = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:16]
    kept = Path(root, f"hashes-{name}.npy")
    hashes = _look_up(states, _load(kept))
    if (hashes != b"").all():
        return hashes

    def hash_file(place: int) -> tuple[bytes, bytes]:
        path = paths[place]
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                stat = os.fstat(file.fileno())
        except OSError:  # encoding will say why
            return b"", b""
        # A change within the same tick of the clock would not show: hash that file again.
        is_settled = max(stat.st_mtime_ns, stat.st_ctime_ns) < start - CLOCK_TICK
        return _digest(path[len(folder) :], stat) if is_settled else b"", digest

    with _lock(kept), ThreadPool(os.cpu_count()) as pool:
        hashes = _look_up(states, _load(kept))  # another process may have hashed them meanwhile
        missing = np.flatnonzero(hashes == b"")
        entries = pool.imap(hash_file, missing.tolist(), chunksize=16)
        bar = tqdm(entries, "hashing", len(missing), unit="img", mininterval=1, delay=2)
        new = np.array(list(bar), dtype=ENTRY)
        hashes[missing] = new["sha256"]
        _save(kept, new[new["file"] == states[missing]])
    return hashes


def file_state(path: str, start: int = 0) -> bytes:
    """Return 16 bytes that change with the file at `path`, from one stat; the file is not read.

    They also depend on the path from its letter `start` on. Raises UserError where there is none.
    """
    try:
        return _digest(path[start:], os.stat(path))
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened ({error.strerror}); is data.root right?"
        ) from None


def _digest(path: str, stat: os.stat_result) -> bytes:
    # mv and unzip keep the time of modification. They change st_ctime, but not where a whole
    # folder or a link is exchanged: there the inode tells.
    numbers = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    text = f"{numbers} {path}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _look_up(states: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the hashes of the files in these states, zeros for what is not known."""
    hashes = np.zeros(len(states), dtype="S32")
    if len(known):
        files = np.ascontiguousarray(known["file"])
        at = np.searchsorted(files, states).clip(max=len(files) - 1)
        found = files[at] == states
        hashes[found] = known["sha256"][at[found]]
    return hashes


def _load(kept: Path) -> np.ndarray:
    """Return what was kept, sorted by file; nothing where that is damaged: it is made anew."""
    try:
        known = np.load(kept)
        if known.dtype == ENTRY and known.ndim == 1:
            return known
    except Exception:  # noqa: S110 - NumPy's errors, of a damaged file, have no common class
        pass
    return np.zeros(0, dtype=ENTRY)


def _save(kept: Path, new: np.ndarray) -> None:
    """Add entries to what is kept. A disk that takes none costs time, not the run."""
    known = np.concatenate([new, _load(kept)])
    known = known[np.unique(known["file"], return_index=True)[1]]
    try:
        with atomic_write(kept) as temporary, temporary.open("wb") as file:
            np.save(file, known)
    except OSError as error:
        log.warning("%s: %s; the next start reads all images again", kept, error.strerror)


def _lock(kept: Path) -> AbstractContextManager:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{kept}.lock").acquire()
    except OSError:  # nothing can be written there
        return nullcontext()
