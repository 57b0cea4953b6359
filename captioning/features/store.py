"""The feature store: the features of a set of images in memory-mapped files.

A store is a folder named by a hash of all that decides its numbers (store_building.py writes it):

    features-00000.npy …   a shard: float16 features of up to 65,536 images
    ids.npy                the image ids as UTF-8, sorted; the position of an id is its row
    checksums.npy          CRC-32 of each block of about a megabyte, shard by shard
    manifest.json          shape, encoder, unreadable images, and the checksums of the last two
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from captioning import UserError
from captioning.data.records import Record

BLOCK_BYTES = 1 << 20
VERIFY_ON_OPEN = 1 << 28  # bytes; larger stores are verified block by block as they are read


class DamagedError(UserError):
    """A store is not what was written. `shards` are the damaged ones; if empty, all may be."""

    def __init__(self, folder: Path, reason: str, shards: Sequence[int] = ()):
        self.shards = shards
        super().__init__(f"{folder} is damaged ({reason}); run the same command to encode it again")


class FeatureStore:
    """Features of a set of images, opened read-only; memory does not grow with their number.

    `shape` is `(images, d)` or `(images, r, d)`. Raises DamagedError if the files are not what was
    written, or not what `key` names; of a store larger than `VERIFY_ON_OPEN`, when a block of rows
    is first read.
    """

    def __init__(self, folder: str | Path, key: str = ""):
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        if key and manifest.get("key", key) != key:
            raise DamagedError(self.folder, "manifest.json is of other images or another encoder")
        try:
            self._open_tables(manifest)
        except Exception as error:  # a damaged file raises errors of no common class
            raise DamagedError(self.folder, str(error)) from None
        self._open_shards()
        if 2 * math.prod(self.shape) <= VERIFY_ON_OPEN:
            self._verify(np.arange(self.shape[0]))

    def _open_tables(self, manifest: dict[str, Any]) -> None:
        self.encoder: dict = manifest["encoder"]
        self.unreadable: dict[str, str] = manifest["unreadable"]
        self.shape: tuple[int, ...] = tuple(map(int, manifest["shape"]))
        self.per_shard = int(manifest["per_shard"])
        self.ids = self._open_array("ids.npy", manifest.get("ids_crc32"))
        ids_match = self.ids.shape == self.shape[:1] and self.ids.dtype.kind == "S"
        if not ids_match or self.per_shard < 1:
            raise ValueError("ids.npy is of another store")
        self.has_checksums = "checksums_crc32" in manifest  # older versions wrote none
        if self.has_checksums:
            self.checksums = self._open_array("checksums.npy", manifest["checksums_crc32"])
            self.is_verified = np.zeros(len(self.checksums), dtype=bool)

    def _open_array(self, name: str, checksum: int | None) -> np.ndarray:
        array = np.load(self.folder / name, mmap_mode="r")
        is_checked = checksum is not None and array.nbytes <= VERIFY_ON_OPEN
        if is_checked and zlib.crc32(array) != checksum:
            raise ValueError(f"{name} is not what was written")
        return array

    def _open_shards(self) -> None:
        self.shards: list[np.ndarray] = []
        damaged = []
        for number, start in enumerate(range(0, self.shape[0], self.per_shard)):
            rows = min(self.per_shard, self.shape[0] - start)
            try:
                shard = np.load(self.folder / shard_name(number), mmap_mode="r")
            except Exception:  # missing or damaged
                shard = np.empty(0)
            if shard.shape != (rows, *self.shape[1:]) or shard.dtype != np.float16:
                damaged.append(number)
            self.shards.append(shard)
        if damaged:
            known = damaged if self.has_checksums else ()  # without, all are encoded again
            raise DamagedError(self.folder, f"{len(damaged)} of its shards", known)

    def find_rows(self, image_ids: Sequence[str]) -> Int[np.ndarray, " image"]:
        """Return the row of each image. Raises KeyError for one that is not in the store."""
        encoded = encode_ids(image_ids)
        # NumPy would convert all of the store's ids to compare them with wider ones.
        rows = np.searchsorted(self.ids, encoded.astype(self.ids.dtype))
        rows = rows.clip(max=len(self.ids) - 1)
        is_missing = self.ids[rows] != encoded
        if is_missing.any():
            raise KeyError(image_ids[int(is_missing.argmax())])
        return rows

    def gather(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return the float16 features, `[n d]` or `[n r d]`, of these rows."""
        rows = np.asarray(rows, dtype=np.int64)
        self._verify(rows, delete_damaged=True)
        if len(self.shards) == 1:
            features = self.shards[0][rows]
        else:
            shards, within = np.divmod(rows, self.per_shard)
            features = np.empty((len(rows), *self.shape[1:]), dtype=np.float16)
            for number in np.unique(shards).tolist():
                in_shard = shards == number
                features[in_shard] = self.shards[number][within[in_shard]]
        return torch.from_numpy(features)

    def get_features(self, records: Sequence[Record]) -> torch.Tensor:
        """Return the float32 features of these images, `[n d]` or `[n r d]`."""
        return self.gather(self.find_rows([record.image_id for record in records])).float()

    def load(self) -> Float[np.ndarray, "image *region feature"]:
        """Read all features into memory, in float16."""
        self._verify(np.arange(self.shape[0]), delete_damaged=True)
        return np.concatenate(self.shards)

    def _verify(self, rows: np.ndarray, delete_damaged: bool = False) -> None:
        """Compare the blocks of these rows that were not read before with their checksums.

        A damaged shard of a store that is in use is deleted, so that the next build, which does
        not verify all of a large store, encodes it again.
        """
        if not self.has_checksums or self.is_verified.all():
            return
        rows_per_block = block_rows(self.shape)
        blocks_per_shard = math.ceil(self.per_shard / rows_per_block)
        shards, within = np.divmod(rows, self.per_shard)
        blocks = shards * blocks_per_shard + within // rows_per_block
        damaged = set()
        for block in np.unique(blocks[~self.is_verified[blocks]]).tolist():
            number, position = divmod(block, blocks_per_shard)
            start = position * rows_per_block
            features = self.shards[number][start : start + rows_per_block]
            self.is_verified[block] = zlib.crc32(features) == self.checksums[block]
            if not self.is_verified[block]:
                damaged.add(number)
        if damaged:
            for number in damaged if delete_damaged else ():
                (self.folder / shard_name(number)).unlink(missing_ok=True)
            raise DamagedError(self.folder, f"{len(damaged)} of its shards", sorted(damaged))


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"features-{number:05}.npy"


def encode_ids(image_ids: Sequence[str]) -> Shaped[np.ndarray, " image"]:
    """Return ids as UTF-8 of one width, which sorts as the text does."""
    return np.array([i.encode("utf-8", "surrogatepass") for i in image_ids], dtype="S")


def block_rows(shape: Sequence[int]) -> int:
    """Return how many rows share a checksum in a store of this shape, `(images, …)`."""
    return max(1, BLOCK_BYTES // (2 * math.prod(shape[1:])))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return manifest.json without its own checksum, which stores of older versions lack.

    Raises DamagedError if it is not what was written.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        checksum = manifest.pop("crc32", None)
    except (ValueError, AttributeError, RecursionError):  # no UTF-8, no JSON, no object
        raise DamagedError(folder, "manifest.json cannot be read") from None
    if (checksum or "key" in manifest) and manifest_crc32(manifest) != checksum:
        raise DamagedError(folder, "manifest.json has changed")
    return manifest


def manifest_crc32(manifest: dict[str, Any]) -> int:
    """Return the checksum of a manifest's content."""
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
