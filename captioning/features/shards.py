"""Encoding, a shard at a time: any number of processes on any number of machines divide the work.

Sorted records and an encoder enter; the files of a feature store leave. A process locks a shard
of the pictures, encodes it and takes the next that nobody has; the shard of one that was killed
is taken by another and goes on where that one stopped. Who finds all shards done writes
manifest.json, and the store is whole. Next: store.py reads it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Shaped
from tqdm import tqdm

from captioning import UserError
from captioning.data.records import Record
from captioning.features.checksums import checksums, crc, file_size, sealed, write_json
from captioning.features.encoder import Encoder
from captioning.features.images import read_ahead

FLUSH_EVERY = 16  # batches; what a kill costs at most

log = logging.getLogger(__name__)


def ids_array(image_ids: Sequence[str]) -> Shaped[np.ndarray, " image"]:
    """Return ids as UTF-8 of one width: sorted ids stay so, and are found without a dict."""
    return np.array([image_id.encode("utf-8", "surrogatepass") for image_id in image_ids])


def encode_shards(
    folder: Path,
    encoder: Encoder,
    records: Sequence[Record],
    device: str,
    batch_size: int,
    per_shard: int,
    key: Callable[[], str] = lambda: "",
) -> None:
    """Fill `folder` together with whoever else does, and return when it is whole.

    The first one decides how many images a shard has. What `key` returns at the end goes into the
    manifest: what the features are of, unless an image changed meanwhile.
    """
    with FileLock(folder / "lock"):
        if (folder / "manifest.json").exists():
            return
        plan = folder / "plan.json"
        if not plan.exists():
            _check_room(folder, len(records), encoder.feature_shape)
            write_json(plan, {"per_shard": per_shard})
        per_shard = json.loads(plan.read_text(encoding="utf-8"))["per_shard"]
    shards = [records[start : start + per_shard] for start in range(0, len(records), per_shard)]
    encoder = encoder.to(device)
    # What others are at is left to them at first; then waited for, and done if they died.
    for timeout in (0, -1):
        for number, shard in enumerate(shards):
            if _is_done(folder, number):
                continue
            try:
                with FileLock(folder / f"shard-{number:05}.lock", timeout=timeout):
                    name = f"encoding {number + 1}/{len(shards)}" if shards[1:] else "encoding"
                    _encode_shard(folder, number, encoder, shard, device, batch_size, name)
            except Timeout:
                continue
    with FileLock(folder / "lock"):
        if not (folder / "manifest.json").exists():
            _merge(folder, encoder, records, per_shard, key())


def _check_room(folder: Path, images: int, shape: tuple[int, ...]) -> None:
    needed, free = 2 * images * int(np.prod(shape)), shutil.disk_usage(folder).free
    if needed > free:  # a memory map of a full disk would end the process without a word
        raise UserError(
            f"the features of {images:,} pictures take {needed / 1e9:,.1f} GB, and {folder} has "
            f"{free / 1e9:,.1f} GB left; name a larger disk with features_root=FOLDER "
            "(train: datamodule.features_root=FOLDER)"
        )


def _encode_shard(
    folder: Path,
    number: int,
    encoder: Encoder,
    records: Sequence[Record],
    device: str,
    batch_size: int,
    name: str,
) -> None:
    final, progress = folder / f"features-{number:05}.npy", folder / f"progress-{number:05}.json"
    if _is_done(folder, number):
        return
    partial = final.with_name(final.name + ".partial")
    shape = (len(records), *encoder.feature_shape)
    features, done, unreadable = _begun(partial, progress, shape)
    if done:
        log.info("%s: going on at image %d of %d", partial, done, len(records))
    encoder.prepare_for(len(records) - done)
    bar = tqdm(total=len(records), initial=done, unit="img", desc=name, mininterval=1)
    paths = [record.path for record in records[done:]]
    for batch, images in enumerate(read_ahead(paths, encoder.preprocess, batch_size), 1):
        good = [at for at, image in enumerate(images) if not isinstance(image, str)]
        for at in set(range(len(images))) - set(good):
            unreadable[records[done + at].image_id] = images[at]
            features[done + at] = 0
        if good:
            stacked = torch.stack([images[at] for at in good]).to(device)
            features[[done + at for at in good]] = encoder(stacked).float().cpu().numpy()
        done += len(images)
        bar.update(len(images))
        if batch % FLUSH_EVERY == 0:
            features.flush()
            write_json(progress, [done, unreadable])
    bar.close()
    features.flush()
    write_json(progress, [done, unreadable, checksums(features)])
    del features
    os.replace(partial, final)


def _is_done(folder: Path, number: int) -> bool:
    """Say whether a shard is whole; who writes the manifest removes the progress after it."""
    names = (f"features-{number:05}.npy", f"progress-{number:05}.json")
    return all((folder / one).exists() for one in names) or (folder / "manifest.json").exists()


def _begun(
    partial: Path, progress: Path, shape: tuple[int, ...]
) -> tuple[np.memmap, int, dict[str, str]]:
    """Open a shard that was begun, or begin one: its features, how many are done, which failed."""
    try:
        done, unreadable = json.loads(progress.read_text(encoding="utf-8"))[:2]
        # NumPy would make a file that is too short longer.
        if partial.stat().st_size == file_size(shape[0], shape):
            return np.lib.format.open_memmap(partial, mode="r+"), done, unreadable
    except (FileNotFoundError, ValueError):  # nothing there, or cut short by what stopped it
        progress.unlink(missing_ok=True)
    features = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):  # or a disk that fills up ends the process without a word
        with partial.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    return features, 0, {}


def _merge(
    folder: Path, encoder: Encoder, records: Sequence[Record], per_shard: int, key: str
) -> None:
    unreadable: dict[str, str] = {}
    sums: list[int] = []
    leftovers = [folder / "plan.json"]  # not the locks: who waits for one would hold no file
    for final in sorted(folder.glob("features-*.npy")):
        progress = folder / f"progress-{final.stem.removeprefix('features-')}.json"
        _, failed, of_it = json.loads(progress.read_text(encoding="utf-8"))
        unreadable |= failed
        sums += of_it
        leftovers.append(progress)
    ids = ids_array([record.image_id for record in records])
    _write_array(folder / "ids.npy", ids)
    _write_array(folder / "checksums.npy", np.array(sums, dtype=np.uint32))
    manifest = {
        "format": 2,
        "key": key,
        "encoder": encoder.identity,
        "shape": (len(records), *encoder.feature_shape),
        "dtype": "float16",
        "per_shard": per_shard,
        "unreadable": unreadable,
        "ids_crc32": crc(ids),
        "checksums_crc32": crc(np.array(sums, dtype=np.uint32)),
    }
    write_json(folder / "manifest.json", sealed(manifest))
    for path in leftovers:
        path.unlink(missing_ok=True)


def _write_array(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f"{path.stem}.tmp.npy")
    np.save(temporary, array)
    os.replace(temporary, path)
