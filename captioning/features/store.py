"""The feature store: every picture through the frozen encoder once, then read at memory speed.

Records and an encoder enter; a folder leaves, named by a hash of all that decides the numbers, the
images' content included: `features-00000.npy` and so on (float16, memory-mapped, 65,536 pictures
each), `ids.npy` (the pictures' ids, sorted: the place of an id is its row), `checksums.npy` and
`manifest.json`.
shards.py fills it; what a disk did to it since is found by its checksums, and encoded again.
Next: datamodule.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int

from captioning.data.records import Record
from captioning.features.checksums import (
    Blocks,
    DamagedError,
    crc,
    file_size,
    invalidate_shards,
    read_manifest,
)
from captioning.features.encoder import Encoder
from captioning.features.hashes import hash_images
from captioning.features.shards import encode_shards, ids_array

PER_SHARD = 65_536  # pictures; 268 MB of a ResNet50's pooled features
AT_ONCE = 1 << 28  # bytes that are compared with their checksums where a store is opened

log = logging.getLogger(__name__)


class FeatureStore:
    """Features of a set of images, opened read-only; memory does not grow with their number.

    `shape` is `(images, d)` or `(images, r, d)`. Raises DamagedError where it is not what was
    written, or not what `key` names: at once for files and their sizes, and for all of a store
    below `AT_ONCE`; otherwise where a block of rows is first read.
    """

    def __init__(self, folder: str | Path, key: str = ""):
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        if key and manifest.get("key", key) != key:
            raise DamagedError(self.folder, "manifest.json is of other pictures or another encoder")
        self._opened: dict[int, np.ndarray] = {}
        self._blocks: Blocks | None = None
        try:
            self._open(manifest)
        except DamagedError:
            raise
        except Exception as error:  # nonsense in a manifest has no common class of errors
            raise DamagedError(self.folder, f"manifest.json: {error}") from None

    def _open(self, manifest: dict) -> None:
        self.encoder: dict = manifest["encoder"]
        self.unreadable: dict[str, str] = manifest["unreadable"]
        self.shape: tuple[int, ...] = tuple(map(int, manifest["shape"]))
        self.ids = self._array("ids.npy", manifest.get("ids_crc32"))
        self.per_shard = int(manifest["per_shard"])
        if self.ids.shape != self.shape[:1] or (len(self.ids) and self.ids.dtype.kind != "S"):
            raise DamagedError(self.folder, "ids.npy is of another store")
        if "checksums_crc32" in manifest:
            sums = self._array("checksums.npy", manifest["checksums_crc32"])
            self._blocks = Blocks(sums, self.shape, self.per_shard)
            self._check_files()

    def rows(self, image_ids: Sequence[str]) -> Int[np.ndarray, " image"]:
        """Return the row of each picture; KeyError for one that the store does not have."""
        asked = ids_array(image_ids)
        if asked.itemsize > self.ids.itemsize:  # numpy would copy all ids to compare them
            lengths = np.char.str_len(asked)
            if lengths.max() > self.ids.itemsize:
                raise KeyError(image_ids[int(lengths.argmax())])
        asked = asked.astype(self.ids.dtype)
        rows = np.searchsorted(self.ids, asked)
        wrong = self.ids[np.minimum(rows, len(self.ids) - 1)] != asked
        if wrong.any():
            raise KeyError(image_ids[int(wrong.argmax())])
        return rows

    def gather(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return float32 features, `[n d]` or `[n r d]`, of those rows."""
        self._check(rows)
        if self.per_shard >= self.shape[0]:
            features = self._shard(0)[rows]
        else:
            shards, within = np.divmod(np.asarray(rows, dtype=np.int64), self.per_shard)
            features = np.empty((len(within), *self.shape[1:]), dtype=np.float16)
            for number in np.unique(shards).tolist():
                mine = np.flatnonzero(shards == number)
                features[mine] = self._shard(number)[within[mine]]
        return torch.from_numpy(features).float()  # numpy's own conversion is slow

    def of(self, records: Sequence[Record]) -> torch.Tensor:
        """Return the features of those pictures, `[n d]` or `[n r d]`."""
        return self.gather(self.rows([record.image_id for record in records]))

    def load(self) -> Float[np.ndarray, "image *region feature"]:
        """Read all features into memory, in float16."""
        self._check(np.arange(self.shape[0]))
        shards = range(-(-self.shape[0] // self.per_shard))
        return np.concatenate([self._shard(number) for number in shards])

    def _array(self, name: str, checksum: int | None) -> np.ndarray:
        try:
            array = np.load(self.folder / name, mmap_mode="r")
        except Exception as error:  # NumPy's, of a damaged header, have no class
            raise DamagedError(self.folder, f"{name}: {error}") from None
        if checksum is not None and array.nbytes <= AT_ONCE and crc(array) != checksum:
            raise DamagedError(self.folder, f"{name} is not what was written")
        return array

    def _check_files(self) -> None:
        images, wrong = self.shape[0], []
        for number, start in enumerate(range(0, images, self.per_shard)):
            file = self.folder / f"features-{number:05}.npy"
            size = file_size(min(self.per_shard, images - start), self.shape)
            if not file.exists() or file.stat().st_size != size:
                wrong.append(number)
        if not wrong and 2 * int(np.prod(self.shape)) <= AT_ONCE:
            wrong = self._blocks.wrong(np.arange(images), self._shard)
        if wrong:
            raise DamagedError(self.folder, f"{len(wrong)} of its shards", wrong)

    def _check(self, rows: Sequence[int] | np.ndarray) -> None:
        if self._blocks and self._blocks.left:
            wrong = self._blocks.wrong(np.asarray(rows, dtype=np.int64), self._shard)
            for number in wrong:  # missing, it will be encoded when the store is opened next
                (self.folder / f"features-{number:05}.npy").unlink(missing_ok=True)
            if wrong:
                raise DamagedError(self.folder, f"{len(wrong)} of its shards", wrong)

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._opened:
            file = self.folder / f"features-{number:05}.npy"
            rows = min(self.per_shard, self.shape[0] - number * self.per_shard)
            try:
                features = np.load(file, mmap_mode="r")
            except Exception as error:  # NumPy's, of a damaged header, have no class
                raise DamagedError(self.folder, f"{file.name}: {error}", [number]) from None
            if features.shape != (rows, *self.shape[1:]) or features.dtype != np.float16:
                raise DamagedError(self.folder, f"{file.name} is of another store", [number])
            self._opened[number] = features
        return self._opened[number]


def build_store(
    root: str | Path,
    encoder: Encoder,
    records: Sequence[Record],
    device: str = "cpu",
    batch_size: int = 32,
    per_shard: int = PER_SHARD,
) -> FeatureStore:
    """Encode each image once into a folder below `root`, or open the folder that holds them.

    A build that was killed goes on where it stopped. Of many processes, on one machine or on many
    that share `root`, each encodes what no other has taken: a shard of `per_shard` images at a
    time. Pictures that cannot be read get a row of zeros and are named in `unreadable`. A store
    that is damaged is encoded again as far as it is, and images that change meanwhile are, too.
    """
    records = sorted(records)

    def images_key() -> str:
        return _key(encoder, records, root)

    for again in (False, True):
        key = images_key()
        name = "-".join((encoder.identity["name"], encoder.identity["features"], key))
        folder = Path(root) / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if not (folder / "manifest.json").exists():
                encode_shards(folder, encoder, records, device, batch_size, per_shard, images_key)
            return FeatureStore(folder, key)
        except (DamagedError, FileNotFoundError) as error:  # or taken by who repairs it
            if again:
                raise
            log.warning("%s, which is now", error)
            _let_go(folder, key)


def _let_go(folder: Path, key: str) -> None:
    """Make a damaged store one that was begun, lacking its damaged shards or all of them."""
    with FileLock(folder / "lock"):
        try:
            FeatureStore(folder, key)
        except FileNotFoundError:
            return  # another process did so
        except DamagedError as error:
            damaged = error.shards
        else:
            return  # another process has repaired it
        invalidate_shards(folder, damaged)


def _key(encoder: Encoder, records: Sequence[Record], root: str | Path) -> str:
    """Hash the encoder's identity, the id of each image and the SHA-256 of its bytes."""
    identity = json.dumps(encoder.identity, sort_keys=True)
    key = hashlib.sha256(f'{{"encoder": {identity}, "images": ['.encode())
    for record in records:
        key.update(f"{json.dumps(record.image_id)}, ".encode())
    key.update(hash_images([record.path for record in records], root).tobytes())
    return key.hexdigest()[:16]
