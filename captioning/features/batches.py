"""Batches: captions of similar length with their pictures' features, in one vectorised gather.

A feature store and encoded captions enter; `Batch(features, tokens, lengths)` leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from captioning.data.vocabulary import PAD
from captioning.features.store import FeatureStore


class Batch(NamedTuple):
    """Captions and the features of their pictures.

    `tokens` holds `<bos>` words `<eos>`, then `<pad>`; `lengths` counts without `<pad>`.
    """

    features: Float[Tensor, "batch *region feature"]
    tokens: Int[Tensor, "batch time"]
    lengths: Int[Tensor, " batch"]


class CaptionDataset(Dataset[Batch]):
    """Encoded captions and their rows in the store; indexed by an array, gives a `Batch`."""

    def __init__(self, store: FeatureStore, rows: Sequence[int], captions: Sequence[list[int]]):
        self.store = store
        self.rows = np.asarray(rows)
        self.lengths = np.array([len(tokens) for tokens in captions])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.tokens = np.concatenate([np.asarray(tokens, dtype=np.int32) for tokens in captions])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: np.ndarray) -> Batch:
        lengths = self.lengths[index]
        time = np.arange(lengths.max())
        real = time < lengths[:, None]
        at = np.where(real, self.starts[index][:, None] + time, 0)
        tokens = np.where(real, self.tokens[at], PAD)
        return Batch(
            self.store.gather(self.rows[index]),
            torch.from_numpy(tokens).long(),
            torch.from_numpy(lengths),
        )


class LengthBuckets(Sampler[np.ndarray]):
    """Index arrays of `batch_size` captions of similar length; every caption once an epoch.

    Shuffled captions are sorted by length in pools of `pool` batches, so that little is padding
    and batches stay random. The order depends on (seed, epoch) alone; of `world_size` processes
    each takes its own share, of equal size. With `shuffle=False`, one pool in a fixed order. A
    last caption that would be alone joins the batch before it, as batch norm needs two.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pool: int = 32,
    ):
        self.lengths = lengths
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.pool = pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._share(len(self._cuts()) + 1))

    def __iter__(self) -> Iterator[np.ndarray]:
        batches = self._batches()
        yield from (batches[at] for at in self._share(len(batches)))

    def _share(self, batches: int) -> range:
        last = batches - batches % self.world_size if self.shuffle else batches
        return range(self.rank, last, self.world_size)

    def _batches(self) -> list[np.ndarray]:
        if not self.shuffle:
            order = np.argsort(self.lengths, kind="stable")
            return np.split(order, self._cuts())
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        size = self.batch_size * self.pool
        for start in range(0, len(order), size):
            part = order[start : start + size]
            order[start : start + size] = part[np.argsort(self.lengths[part], kind="stable")]
        batches = np.split(order, self._cuts())
        random.shuffle(batches)
        return batches

    def _cuts(self) -> np.ndarray:
        return np.arange(
            self.batch_size, max(self.batch_size, len(self.lengths) - 1), self.batch_size
        )
