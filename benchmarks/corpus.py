"""Generated captions and features with the statistics of Flickr8k; nothing of it is real.

30,000 training captions of 11.8 words on average, 8,768 different words of which about 2,540 are
seen five times: a Zipf law with the corpus' tail.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from captioning.data.vocabulary import BOS, EOS, UNK
from captioning.features.store import FeatureStore, encode_ids

ALL_WORDS, FREQUENT_WORDS = 8768, 2540


def captions(number: int, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Return encoded captions, `<bos>` and `<eos>` included, over that many words."""
    random = np.random.default_rng(seed)
    lengths = random.normal(10.8, 3.4, number).round().clip(4, 36).astype(int)
    weights = 1 / np.arange(10, 10 + vocabulary - UNK - 1) ** 1.1
    words = random.choice(len(weights), lengths.sum(), p=weights / weights.sum()) + UNK + 1
    parts = np.split(words, np.cumsum(lengths)[:-1])
    return [[BOS, *part.tolist(), EOS] for part in parts]


def store(folder: Path, images: int, shape: tuple[int, ...], filled: bool = True) -> FeatureStore:
    """Return a feature store of random numbers, or of zeros that take no space on the disk."""
    folder.mkdir(parents=True)
    features = np.lib.format.open_memmap(
        folder / "features-00000.npy", mode="w+", dtype=np.float16, shape=(images, *shape)
    )
    if filled:
        random = np.random.default_rng(0)
        some = random.standard_normal((min(500, images), *shape), dtype=np.float32).clip(0)
        for start in range(0, images, 500):  # the same again and again: drawing takes long
            features[start : start + 500] = some[: images - start]
    features.flush()
    np.save(folder / "ids.npy", encode_ids([f"{number:08}" for number in range(images)]))
    manifest = {"format": 2, "encoder": {}, "unreadable": {}}
    manifest |= {"shape": features.shape, "per_shard": images}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return FeatureStore(folder)
