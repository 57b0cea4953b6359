"""Rows: memory and time of an epoch's batches, as the data set grows; features are generated.

`python -m benchmarks.memory IMAGES` measures one size, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from benchmarks import corpus
from benchmarks.rows import Row
from captioning.features.batches import CaptionDataset, LengthBuckets

FEATURE, BATCH = 2048, 128  # a ResNet50's
BATCHES = 3000  # of an epoch, at most: the others take as long


def memory(folder: Path, repeats: int, sizes: tuple[int, ...]) -> list[Row]:
    """Each size against its features as one float32 tensor."""
    rows, first = [], None
    for images in sizes:
        found = [_measured(images) for _ in range(repeats)]
        megabytes, microseconds = zip(*found, strict=True)
        first = first or float(np.median(microseconds))
        row = Row(
            f"memory, {images:,} images",
            "MB",
            list(megabytes),
            [images * FEATURE * 4 / 1e6],
            "features as one float32 tensor (arithmetic)",
        )
        per_caption = float(np.median(microseconds))
        row.notes = {"µs a caption": per_caption, "of the smallest": per_caption / first}
        rows.append(row)
    return rows


def _measured(images: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.memory", str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def epoch(folder: Path, images: int) -> tuple[float, float]:
    """Return the process's own memory at most (MB), over what it had before, and µs a caption."""
    store = corpus.store(folder / "store", images, (FEATURE,), filled=False)
    before = own_memory()
    # A thousand captions stand for all: what counts here is how many there are.
    some = corpus.captions(1000, corpus.FREQUENT_WORDS)
    captions = (some[at % 1000] for at in range(5 * images))
    dataset = CaptionDataset(store, np.repeat(np.arange(images), 5), captions)
    buckets = LengthBuckets(dataset.lengths, BATCH, shuffle=True)
    loader = DataLoader(dataset, sampler=buckets, batch_size=None, collate_fn=lambda batch: batch)
    most, seen, start = 0.0, 0, time.perf_counter()
    for number, batch in enumerate(islice(loader, BATCHES)):
        seen += len(batch.tokens)
        if number % 500 == 0:
            most = max(most, own_memory())
    return most - before, 1e6 * (time.perf_counter() - start) / seen


def own_memory() -> float:
    """Return the megabytes that only this process holds: not the file pages the kernel caches."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("no RssAnon: this measurement needs Linux")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(epoch(Path(temporary), int(sys.argv[1]))))
