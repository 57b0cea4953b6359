"""Checksums of a feature store: a flipped bit, a short file, another store's manifest are found.

Arrays and manifests enter; CRC-32 of blocks of about a megabyte leave, and `DamagedError` where
the disk does not hold what was written. Used by shards.py, which writes, and store.py, which reads.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captioning import UserError
from captioning.data.atomic import atomic_write

BLOCK = 1 << 20  # bytes


class DamagedError(UserError):
    """A store is not what was written; `shards` are those to encode again, none of them: all."""

    def __init__(self, folder: Path, what: str, shards: Sequence[int] = ()):
        self.shards = shards
        super().__init__(f"{folder} is damaged ({what}); the same command encodes that again")


def block_rows(shape: Sequence[int]) -> int:
    """Return how many rows share a checksum in a store of this shape, `(images, ...)`."""
    return max(1, BLOCK // (2 * int(np.prod(shape[1:]))))


def checksums(features: np.ndarray) -> list[int]:
    """Return the CRC-32 of each block of some rows, which begin where a block does."""
    rows = block_rows(features.shape)
    blocks = (features[at : at + rows] for at in range(0, len(features), rows))
    return [crc(block) for block in blocks]


def crc(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8))


def file_size(rows: int, shape: Sequence[int]) -> int:
    """Return the bytes of a shard's file: NumPy's header, and float16."""
    header = io.BytesIO()
    described = {"descr": "<f2", "fortran_order": False, "shape": (rows, *shape[1:])}
    np.lib.format.write_array_header_1_0(header, described)
    return len(header.getvalue()) + 2 * rows * int(np.prod(shape[1:]))


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest together with the checksum of what it says."""
    return manifest | {"crc32": zlib.crc32(json.dumps(manifest, sort_keys=True).encode())}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return manifest.json; that of a store from before there were checksums has none.

    Raises DamagedError where it is not what was written.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        said = manifest.pop("crc32", None)
    except (ValueError, AttributeError, RecursionError):  # no UTF-8, no JSON, no object
        raise DamagedError(folder, "manifest.json cannot be read") from None
    if (said or "key" in manifest) and sealed(manifest)["crc32"] != said:
        raise DamagedError(folder, "manifest.json has changed")
    return manifest


def invalidate_shards(folder: Path, damaged: Sequence[int]) -> None:
    """Make a whole store one that was begun and lacks those shards; all of them, where none is.

    For who holds its lock. The manifest goes last: killed before, it is damaged as it was.
    """
    there = {int(path.stem[-5:]): path for path in folder.glob("features-*.npy")}
    kept = [number for number in sorted(there) if damaged and number not in damaged]
    if kept:
        manifest, sums = read_manifest(folder), np.load(folder / "checksums.npy")
        size = Blocks(sums, manifest["shape"], manifest["per_shard"]).of_a_shard
        for number in kept:
            of_it = sums[number * size : (number + 1) * size].tolist()
            write_json(folder / f"progress-{number:05}.json", [0, manifest["unreadable"], of_it])
        write_json(folder / "plan.json", {"per_shard": manifest["per_shard"]})
    for number in there.keys() - set(kept):
        there[number].unlink()
    (folder / "manifest.json").unlink()


def write_json(path: Path, content: object) -> None:
    """Write a file that is there as a whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


class Blocks:
    """The checksums of a store's blocks, and which were compared since it was opened.

    A block belongs to one shard; the last of a shard may be shorter.
    """

    def __init__(self, sums: np.ndarray, shape: Sequence[int], per_shard: int):
        self.sums = sums
        self.rows = block_rows(shape)
        self.per_shard = per_shard
        self.of_a_shard = -(-per_shard // self.rows)
        self.unread = np.ones(len(sums), dtype=bool)
        self.left = len(sums)

    def wrong(self, rows: np.ndarray, shard: Callable[[int], np.ndarray]) -> list[int]:
        """Read the blocks of those rows that were not read yet; return the shards that differ."""
        found = {}
        numbers, within = np.divmod(rows, self.per_shard)
        blocks = numbers * self.of_a_shard + within // self.rows
        for block in np.unique(blocks[self.unread[blocks]]).tolist():
            number, at = divmod(block, self.of_a_shard)
            if crc(shard(number)[at * self.rows : (at + 1) * self.rows]) != self.sums[block]:
                found[number] = None
                continue
            self.unread[block] = False
            self.left -= 1
        return list(found)
