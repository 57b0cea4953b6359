"""The feature store: every picture through the frozen encoder once, then read at memory speed.

Records and an encoder enter; a folder leaves, named by a hash of all that decides the numbers:
`features-00000.npy` and so on (float16, memory-mapped, 65,536 pictures each), `ids.npy` (the
pictures' ids, sorted: the place of an id is its row) and `manifest.json`. shards.py fills it.
Next: datamodule.py.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from captioning.data.records import Record, UserError
from captioning.features.encoder import Encoder
from captioning.features.shards import encode_shards, ids_array

PER_SHARD = 65_536  # pictures; 268 MB of a ResNet50's pooled features


class FeatureStore:
    """Features of a set of images, opened read-only; memory does not grow with their number.

    `shape` is `(images, d)` or `(images, r, d)`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._opened: dict[int, np.ndarray] = {}
        damaged = f"{self.folder} is damaged; delete it and run the same command again"
        try:
            self._open(json.loads((self.folder / "manifest.json").read_text(encoding="utf-8")))
        except Exception:  # JSON and numpy's headers can be wrong in ways without a common class
            raise UserError(damaged) from None
        if self.shape[:1] != self.ids.shape or (len(self.ids) and self.ids.dtype.kind != "S"):
            raise UserError(damaged)

    def _open(self, manifest: dict) -> None:
        self.encoder: dict = manifest["encoder"]
        self.unreadable: dict[str, str] = manifest["unreadable"]
        self.shape: tuple[int, ...] = tuple(map(int, manifest["shape"]))
        if "image_ids" in manifest:  # as it was before there were shards: one file, ids in JSON
            self.ids = ids_array(manifest["image_ids"])
            self.per_shard = max(1, self.shape[0])
            self._opened[0] = np.load(self.folder / "features.npy", mmap_mode="r")
        else:
            self.ids = np.load(self.folder / "ids.npy", mmap_mode="r")
            self.per_shard = max(1, int(manifest["per_shard"]))

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
        shards = range(-(-self.shape[0] // self.per_shard))
        return np.concatenate([self._shard(number) for number in shards])

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._opened:
            file = self.folder / f"features-{number:05}.npy"
            try:
                features = np.load(file, mmap_mode="r")
                held = min(self.per_shard, self.shape[0] - number * self.per_shard)
                if features.shape != (held, *self.shape[1:]) or features.dtype != np.float16:
                    raise ValueError
            except Exception:
                raise UserError(f"{file} is damaged; delete its folder and encode anew") from None
            self._opened[number] = features
        return self._opened[number]


class Views:
    """Stores of the same pictures, seen in several ways, as one: rows of the second follow."""

    def __init__(self, stores: Sequence[FeatureStore]):
        self.stores = stores
        self.images = stores[0].shape[0]

    def gather(self, rows: Int[np.ndarray, " n"]) -> torch.Tensor:
        """Return float32 features, `[n d]` or `[n r d]`; a row is `image + images * view`."""
        views, within = np.divmod(rows, self.images)
        features = torch.empty(len(rows), *self.stores[0].shape[1:])
        for view in np.unique(views).tolist():
            mine = np.flatnonzero(views == view)
            features[mine] = self.stores[view].gather(within[mine])
        return features

    def load(self) -> Float[np.ndarray, "row *region feature"]:
        """Read all features into memory, in float16."""
        return np.concatenate([store.load() for store in self.stores])


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
    time. Pictures that cannot be read get a row of zeros and are named in `unreadable`.
    """
    records = sorted(records)
    folder = Path(root) / "-".join(
        (encoder.identity["name"], encoder.identity["features"], _key(encoder, records))
    )
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "manifest.json").exists():
        encode_shards(folder, encoder, records, device, batch_size, per_shard)
    return FeatureStore(folder)


def _key(encoder: Encoder, records: Sequence[Record]) -> str:
    """Hash the encoder's identity and the id and size of each picture, one at a time."""
    identity = json.dumps(encoder.identity, sort_keys=True)
    key = hashlib.sha256(f'{{"encoder": {identity}, "images": ['.encode())
    for number, record in enumerate(records):
        image = json.dumps([record.image_id, _size(record.path)])
        key.update(f"{', ' if number else ''}{image}".encode())
    key.update(b"]}")
    return key.hexdigest()[:16]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened ({error.strerror}); is data.root right?"
        ) from None
