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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Shaped
from tqdm import tqdm

from captioning.data.records import Record, UserError
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
) -> None:
    """Fill `folder` together with whoever else does, and return when it is whole.

    The first one decides how many images a shard has.
    """
    with FileLock(folder / "lock"):
        if (folder / "manifest.json").exists():
            return
        plan = folder / "plan.json"
        if not plan.exists():
            _check_room(folder, len(records), encoder.feature_shape)
            _write_json(plan, {"per_shard": per_shard})
        per_shard = json.loads(plan.read_text(encoding="utf-8"))["per_shard"]
    shards = [records[start : start + per_shard] for start in range(0, len(records), per_shard)]
    encoder = encoder.to(device)
    # What others are at is left to them at first; then waited for, and done if they died.
    for timeout in (0, -1):
        for number, shard in enumerate(shards):
            if (folder / f"features-{number:05}.npy").exists():
                continue
            try:
                with FileLock(folder / f"shard-{number:05}.lock", timeout=timeout):
                    name = f"encoding {number + 1}/{len(shards)}" if shards[1:] else "encoding"
                    _encode_shard(folder, number, encoder, shard, device, batch_size, name)
            except Timeout:
                continue
    with FileLock(folder / "lock"):
        if not (folder / "manifest.json").exists():
            _merge(folder, encoder, records, per_shard)


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
    if final.exists():
        return
    partial = final.with_name(final.name + ".partial")
    if progress.exists():
        done, unreadable = json.loads(progress.read_text(encoding="utf-8"))
        log.info("%s: going on at image %d of %d", partial, done, len(records))
        features = np.lib.format.open_memmap(partial, mode="r+")
    else:
        done, unreadable = 0, {}
        shape = (len(records), *encoder.feature_shape)
        features = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    encoder.expect(len(records) - done)
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
            _write_json(progress, [done, unreadable])
    bar.close()
    features.flush()
    del features
    _write_json(progress, [done, unreadable])
    os.replace(partial, final)


def _merge(folder: Path, encoder: Encoder, records: Sequence[Record], per_shard: int) -> None:
    unreadable: dict[str, str] = {}
    leftovers = [folder / "plan.json", *folder.glob("shard-*.lock")]
    for progress in sorted(folder.glob("progress-*.json")):
        unreadable |= json.loads(progress.read_text(encoding="utf-8"))[1]
        leftovers.append(progress)
    temporary = folder / "ids.tmp.npy"
    np.save(temporary, ids_array([record.image_id for record in records]))
    os.replace(temporary, folder / "ids.npy")
    manifest = {
        "format": 2,
        "encoder": encoder.identity,
        "shape": (len(records), *encoder.feature_shape),
        "dtype": "float16",
        "per_shard": per_shard,
        "unreadable": unreadable,
    }
    _write_json(folder / "manifest.json", manifest)
    for path in leftovers:
        path.unlink(missing_ok=True)


def _write_json(path: Path, content: object) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, path)
