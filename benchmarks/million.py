"""A million images, generated: what the feature store and the batches take of time and memory.

    python -m benchmarks.million --images 1000000 --processes 2 --folder /tmp/million

Features are random numbers and no image is decoded, so that only the store's own cost shows; the
files are of 5 kB, hard links to one for each 50,000. With `--decode FOLDER`, also how fast one
thread reads and resizes the JPEGs there. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from captioning.data.image_files import load_image
from captioning.data.records import Record
from captioning.features import images as images_module
from captioning.features.batches import CaptionDataset, LengthBuckets
from captioning.features.hashes import hash_images
from captioning.features.images import Preprocess
from captioning.features.store import FeatureStore
from captioning.features.store_building import build_store

DIM = 1280  # of an EfficientNet-Lite0's pooled features
LINKS = 50_000  # to one file: file systems allow 65,000


class Generated:
    """An encoder of nothing: random features, by the batch."""

    identity: ClassVar = {"name": "generated", "features": "pooled"}
    feature_shape = (DIM,)
    device = torch.device("cpu")

    def to(self, device: str) -> Generated:
        """Stay."""
        return self

    def prepare_for(self, images: int) -> None:
        """Need nothing."""

    def preprocess(self, image: None) -> torch.Tensor:
        """Return the smallest image there is."""
        return torch.zeros(1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return random features."""
        return torch.rand(len(images), DIM)


def records_of(folder: str, images: int) -> list[Record]:
    """Return so many records with five captions each; `write_images` makes their files."""
    captions = tuple(f"a caption of about ten words , the number {n} ." for n in range(5))
    names = [f"{n // LINKS:05}/{n:09}.jpg" for n in range(images)]
    return [Record(name, f"{folder}/images/{name}", captions, "train") for name in names]


def write_images(folder: str, images: int) -> None:
    """Write the files of `records_of`."""
    for number, record in enumerate(records_of(folder, images)):
        if number % LINKS == 0:
            first = Path(record.path)
            first.parent.mkdir(parents=True)
            first.write_bytes(os.urandom(5000))
        else:
            os.link(first, record.path)


def encode(folder: str, images: int) -> None:
    """Do one process's part of the encoding."""
    images_module.load_image = lambda path: None
    build_store(folder, Generated(), records_of(folder, images))


@contextmanager
def measured(result: dict, name: str) -> Iterator[None]:
    """Note the seconds that something takes."""
    start = time.perf_counter()
    yield
    result[name] = round(time.perf_counter() - start, 4)
    print(f"{name}: {result[name]}", flush=True)


def gathering(store: FeatureStore, result: dict) -> None:
    """Time random batches of 128 from the shards, and from one file of the same size."""
    rows = [np.random.default_rng(n).integers(0, store.shape[0], 128) for n in range(1000)]
    whole = Path(store.folder) / "whole.npy"
    np.save(whole, store.load())
    one = np.load(whole, mmap_mode="r")
    for _ in range(2):  # the second time from the page cache
        with measured(result, "1000 batches from shards, s"):
            for batch in rows:
                store.gather(batch).float()
        with measured(result, "1000 batches from one file, s"):
            for batch in rows:
                torch.from_numpy(one[batch].astype(np.float32))
    whole.unlink()


def batching(store: FeatureStore, records: list[Record], result: dict) -> None:
    """Time what a training run makes of the captions before its first step."""
    with measured(result, "rows of five captions per image, s"):
        rows = store.find_rows([one.image_id for one in records for _ in one.captions])
    lengths = np.random.default_rng(0).integers(8, 20, len(rows))
    with measured(result, "dataset, s"):
        dataset = CaptionDataset(store, rows, [[1] * length for length in lengths.tolist()])
    with measured(result, "first batch of an epoch, s"):
        dataset[next(iter(LengthBuckets(dataset.lengths, 128, True)))]


def decoding(folder: str) -> float:
    """Return how many images per second one thread reads and makes an encoder's input of."""
    preprocess = Preprocess(224, None, [0.5] * 3, [0.5] * 3, "bilinear")
    paths = sorted(Path(folder).glob("*.jpg"))[:500]
    start = time.perf_counter()
    for path in paths:
        preprocess(load_image(path))
    return round(len(paths) / (time.perf_counter() - start), 1)


def main() -> None:
    """Run all parts and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--decode", metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict = {"images": options.images, "processes": options.processes}
    if options.decode:
        result["pictures a second a thread"] = decoding(options.decode)
    write_images(options.folder, options.images)
    time.sleep(3)  # what has only just been written would be hashed again
    with measured(result, "hash all files, s"):
        records = records_of(options.folder, options.images)
        hash_images([record.path for record in records], options.folder)
    context = multiprocessing.get_context("spawn")
    arguments = (options.folder, options.images)
    workers = [context.Process(target=encode, args=arguments) for _ in range(options.processes)]
    with measured(result, "encoding, s"):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    result["peak of one encoding process, MB"] = usage.ru_maxrss // 1024
    with measured(result, "records, s"):
        records = records_of(options.folder, options.images)
    with measured(result, "key and opening, s"):
        store = build_store(options.folder, Generated(), records)
    result["peak with records and open store, MB"] = peak()
    files = {path.name: path.stat().st_size for path in store.folder.iterdir()}
    result["features, bytes"] = sum(size for name, size in files.items() if "features-" in name)
    result["ids.npy, bytes"] = files["ids.npy"]
    result["manifest.json, bytes"] = files["manifest.json"]
    result["shards"] = sum("features-" in name for name in files)
    batching(store, records, result)
    result["peak with the dataset, MB"] = peak()
    gathering(store, result)
    print(json.dumps(result, indent=1))


def peak() -> int:
    """Return the most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
