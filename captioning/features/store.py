"""The feature store: every picture through the frozen encoder once, then read at memory speed.

Records and an encoder enter; a folder with `features.npy` (float16, memory-mapped) and
`manifest.json` leaves, named by a hash of all that decides the numbers. Next: datamodule.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from captioning.data.records import Record, UserError
from captioning.features.encoder import Encoder
from captioning.features.images import read_ahead

FLUSH_EVERY = 16  # batches; what a kill costs at most

log = logging.getLogger(__name__)


class FeatureStore:
    """Features of a set of images, opened read-only; memory does not grow with their number."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        self.encoder: dict = manifest["encoder"]
        self.unreadable: dict[str, str] = manifest["unreadable"]
        self.rows = {image_id: row for row, image_id in enumerate(manifest["image_ids"])}
        self.features = np.load(self.folder / "features.npy", mmap_mode="r")
        if len(self.features) != len(self.rows):
            raise UserError(f"{self.folder} is damaged; delete it and run the same command again")

    def gather(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return float32 features, `[n d]` or `[n r d]`, of those rows."""
        return torch.from_numpy(self.features[rows]).float()  # numpy's own conversion is slow

    def of(self, records: Sequence[Record]) -> torch.Tensor:
        """Return the features of those pictures, `[n d]` or `[n r d]`."""
        return self.gather([self.rows[record.image_id] for record in records])


def build_store(
    root: str | Path,
    encoder: Encoder,
    records: Sequence[Record],
    device: str = "cpu",
    batch_size: int = 32,
) -> FeatureStore:
    """Encode each image once into a folder below `root`, or open the folder that holds them.

    A build that was killed goes on where it stopped; of many processes one builds while the
    others wait. Pictures that cannot be read get a row of zeros and are named in `unreadable`.
    """
    records = sorted(records)
    identity = {
        "encoder": encoder.identity,
        "images": [(record.image_id, _size(record.path)) for record in records],
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(root) / f"{encoder.identity['name']}-{encoder.identity['features']}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "manifest.json").exists():
            _encode_all(folder, encoder, records, device, batch_size)
    return FeatureStore(folder)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened ({error.strerror}); is data.root right?"
        ) from None


def _encode_all(
    folder: Path, encoder: Encoder, records: Sequence[Record], device: str, batch_size: int
) -> None:
    partial, progress = folder / "features.npy.partial", folder / "progress.json"
    shape = (len(records), *encoder.feature_shape)
    if progress.exists():
        done, unreadable = json.loads(progress.read_text(encoding="utf-8"))
        log.info("%s: going on at image %d of %d", folder, done, len(records))
        features = np.lib.format.open_memmap(partial, mode="r+")
    else:
        done, unreadable = 0, {}
        features = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    encoder = encoder.to(device)
    encoder.expect(len(records) - done)
    bar = tqdm(total=len(records), initial=done, unit="img", desc="encoding", mininterval=1)
    paths = [record.path for record in records[done:]]
    for number, images in enumerate(read_ahead(paths, encoder.preprocess, batch_size), 1):
        good = [at for at, image in enumerate(images) if not isinstance(image, str)]
        for at in set(range(len(images))) - set(good):
            unreadable[records[done + at].image_id] = images[at]
            features[done + at] = 0
        if good:
            batch = torch.stack([images[at] for at in good]).to(device)
            features[[done + at for at in good]] = encoder(batch).float().cpu().numpy()
        done += len(images)
        bar.update(len(images))
        if number % FLUSH_EVERY == 0:
            features.flush()
            _write_json(progress, [done, unreadable])
    bar.close()
    features.flush()
    del features
    os.replace(partial, folder / "features.npy")
    manifest = {
        "encoder": encoder.identity,
        "shape": shape,
        "dtype": "float16",
        "unreadable": unreadable,
        "image_ids": [record.image_id for record in records],
    }
    _write_json(folder / "manifest.json", manifest)
    progress.unlink(missing_ok=True)


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, path)
