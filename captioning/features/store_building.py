"""Encode images into a feature store, by any number of processes on any number of machines.

A process locks a shard, encodes its images and goes on with the next that is free. The shard of a
process that was killed is continued by another after the last flushed batch. manifest.json is
written when all shards are; a damaged store loses it and its damaged shards, and is built further.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from captioning import UserError
from captioning.data.atomic import atomic_write, atomic_write_text
from captioning.data.progress import progress_bar
from captioning.data.records import Record
from captioning.features.encoder import Encoder, encode_ahead
from captioning.features.hashes import hash_inputs
from captioning.features.images import read_ahead
from captioning.features.store import (
    DamagedError,
    FeatureStore,
    block_rows,
    encode_ids,
    manifest_crc32,
    read_manifest,
    shard_name,
)

PER_SHARD = 65_536  # images; 268 MB of a ResNet50's pooled features
FLUSH_EVERY = 16  # batches; a kill costs no more than these and the next

log = logging.getLogger(__name__)


def build_store(
    root: str | Path,
    encoder: Encoder,
    records: Sequence[Record],
    device: str = "cpu",
    batch_size: int = 32,
    per_shard: int = PER_SHARD,
) -> FeatureStore:
    """Encode each image once into a folder below `root`, or open the folder that holds them.

    A build that was killed is continued. Images that cannot be read get a row of zeros and are
    named in `unreadable`. Damaged shards are encoded again, as are images that change meanwhile.
    """
    records = sorted(records)
    get_key = functools.partial(hash_inputs, encoder.identity, records, root)
    for is_second_try in (False, True):
        key = get_key()
        folder = Path(root, f"{encoder.identity['name']}-{encoder.identity['features']}-{key}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if not (folder / "manifest.json").exists():
                encode_shards(folder, encoder.to(device), records, batch_size, per_shard, get_key)
            return FeatureStore(folder, key)
        except (DamagedError, FileNotFoundError) as error:  # or another process is repairing it
            if is_second_try:
                raise
            log.warning("%s; this one does", error)
        with FileLock(folder / "lock"), suppress(FileNotFoundError):
            try:
                FeatureStore(folder, key)  # it may have been repaired or invalidated meanwhile
            except DamagedError as error:
                _invalidate_shards(folder, error.shards)


def encode_shards(
    folder: Path,
    encoder: Encoder,
    records: Sequence[Record],
    batch_size: int,
    per_shard: int,
    get_key: Callable[[], str],
) -> None:
    """Fill `folder` together with other processes; return when the store is complete.

    The first process decides `per_shard`. `get_key` is called at the end, so that the manifest's
    key differs from the folder's if an image has changed meanwhile.
    """
    with FileLock(folder / "lock"):
        if (folder / "manifest.json").exists():
            return
        plan = folder / "plan.json"
        if not plan.exists():
            _check_disk_space(folder, 2 * len(records) * math.prod(encoder.feature_shape))
            _write_json(plan, {"per_shard": per_shard})
        per_shard = json.loads(plan.read_text(encoding="utf-8"))["per_shard"]
    shards = [records[start : start + per_shard] for start in range(0, len(records), per_shard)]
    # First the shards that no process has locked; then wait for the others, in case one died.
    for timeout in (0, -1):
        for number, shard in enumerate(shards):
            lock = FileLock(folder / f"shard-{number:05}.lock", timeout=timeout)
            with suppress(Timeout), lock:
                if not _is_encoded(folder, number):
                    _encode_shard(folder, number, encoder, shard, batch_size)
    with FileLock(folder / "lock"):
        if not (folder / "manifest.json").exists():
            _write_manifest(folder, encoder, records, per_shard, get_key())


def _check_disk_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:  # a memory map on a full disk would end the process without a message
        raise UserError(
            f"the features take {needed / 1e9:,.1f} GB, and {folder} has {free / 1e9:,.1f} GB "
            "left; name a larger disk with features_root=FOLDER "
            "(train: datamodule.features_root=FOLDER)"
        )


def _is_encoded(folder: Path, number: int) -> bool:
    """Return whether a shard is complete; its progress file is deleted when the store is."""
    files = (folder / shard_name(number), folder / _progress_name(number))
    return all(file.exists() for file in files) or (folder / "manifest.json").exists()


def _encode_shard(
    folder: Path, number: int, encoder: Encoder, records: Sequence[Record], batch_size: int
) -> None:
    partial, progress = folder / f"{shard_name(number)}.partial", folder / _progress_name(number)
    shape = (len(records), *encoder.feature_shape)
    features, done, unreadable = _open_partial(partial, progress, shape)
    encoder.prepare_for(len(records) - done)
    label = f"encoding shard {number + 1}"
    bar = progress_bar(total=len(records), initial=done, unit="img", desc=label, mininterval=1)
    paths = [record.path for record in records[done:]]
    batches = read_ahead(paths, encoder.preprocess, batch_size)
    for batch, (images, encoded) in enumerate(encode_ahead(encoder, batches), 1):
        batch_end = done + len(images)
        features[done:batch_end] = 0
        is_readable = [isinstance(image, Tensor) for image in images]
        features[done:batch_end][is_readable] = encoded.numpy()
        for record, image in zip(records[done:batch_end], images, strict=True):
            if isinstance(image, str):
                unreadable[record.image_id] = image
        done = batch_end
        bar.update(len(images))
        if batch % FLUSH_EVERY == 0:
            features.flush()
            _write_json(progress, [done, unreadable])
    bar.close()
    features.flush()
    rows = block_rows(shape)
    blocks = (features[start : start + rows] for start in range(0, len(records), rows))
    _write_json(progress, [done, unreadable, [zlib.crc32(block) for block in blocks]])
    os.replace(partial, folder / shard_name(number))


def _open_partial(
    partial: Path, progress: Path, shape: tuple[int, ...]
) -> tuple[np.memmap, int, dict[str, str]]:
    """Open a shard that was begun, or begin it: features, images done, unreadable images."""
    with suppress(Exception):  # it is not begun, or damaged by what stopped it
        done, unreadable = json.loads(progress.read_text(encoding="utf-8"))[:2]
        # Read-only first: with "r+", NumPy would lengthen a file that is too short.
        if np.load(partial, mmap_mode="r").shape == shape:
            return np.load(partial, mmap_mode="r+"), done, unreadable
    progress.unlink(missing_ok=True)
    features = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):  # or a disk that fills up ends the process without a message
        with partial.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    return features, 0, {}


def _write_manifest(
    folder: Path, encoder: Encoder, records: Sequence[Record], per_shard: int, key: str
) -> None:
    unreadable: dict[str, str] = {}
    sums: list[int] = []
    progress = [folder / _progress_name(n) for n in range(math.ceil(len(records) / per_shard))]
    for path in progress:
        _, unreadable_in_shard, sums_of_shard = json.loads(path.read_text(encoding="utf-8"))
        unreadable |= unreadable_in_shard
        sums += sums_of_shard
    ids = encode_ids([record.image_id for record in records])
    checksums = np.array(sums, dtype=np.uint32)
    for name, array in (("ids.npy", ids), ("checksums.npy", checksums)):
        with atomic_write(folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    manifest = {
        "format": 2,
        "key": key,
        "encoder": encoder.identity,
        "shape": (len(records), *encoder.feature_shape),
        "dtype": "float16",
        "per_shard": per_shard,
        "unreadable": unreadable,
        "ids_crc32": zlib.crc32(ids),
        "checksums_crc32": zlib.crc32(checksums),
    }
    _write_json(folder / "manifest.json", manifest | {"crc32": manifest_crc32(manifest)})
    # The lock files stay: a process that waits for one would hold a deleted file.
    for path in [folder / "plan.json", *progress]:
        path.unlink(missing_ok=True)


def _invalidate_shards(folder: Path, damaged: Sequence[int]) -> None:
    """Delete damaged shards (all if none is given), which the next build then encodes again.

    The caller holds the folder's lock. The manifest is deleted last: if killed before, the store
    is still damaged, and the next build starts here again.
    """
    shards = {int(path.stem.removeprefix("features-")): path for path in folder.glob("feat*.npy")}
    if damaged:
        manifest, checksums = read_manifest(folder), np.load(folder / "checksums.npy")
        blocks = math.ceil(manifest["per_shard"] / block_rows(manifest["shape"]))
        for number in shards.keys() - set(damaged):
            sums = checksums[number * blocks : (number + 1) * blocks].tolist()
            _write_json(folder / _progress_name(number), [0, manifest["unreadable"], sums])
        _write_json(folder / "plan.json", {"per_shard": manifest["per_shard"]})
    for number in damaged or shards:
        (folder / shard_name(number)).unlink(missing_ok=True)
    (folder / "manifest.json").unlink()


def _progress_name(number: int) -> str:
    return f"progress-{number:05}.json"


def _write_json(path: Path, content: object) -> None:
    atomic_write_text(path, json.dumps(content))
