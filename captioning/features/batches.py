"""Batches: captions of similar length with their pictures' features, in one vectorised gather.

A feature store and encoded captions enter; `Batch`es leave.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from captioning import UserError
from captioning.data.vocabulary import PAD
from captioning.features.store import FeatureStore


class Batch(NamedTuple):
    """Captions, and each of their pictures once.

    `rows` are the pictures' rows in the store. `tokens` holds `<bos>` words `<eos>`, then `<pad>`;
    `image_index` says which of the features a caption is of; `target_positions` are those of all
    real tokens but the first in `tokens[:, 1:].flatten()`, so that nothing is computed for padding.
    They are made here, where no device has to wait for them.
    """

    features: Float[Tensor, "picture *region feature"] | Int[Tensor, " picture"]
    rows: Int[Tensor, " picture"]
    image_index: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch time"]
    target_positions: Int[Tensor, " word"]


class CaptionDataset(Dataset[Batch]):
    """Encoded captions and their rows in the store; indexed by an array, gives a `Batch`.

    Where `store` is none, the features of the batch are their rows, `[picture]`: the features wait
    on the device. Captions are read once, so a generator will do; a word takes four bytes.
    """

    def __init__(
        self,
        store: FeatureStore | None,
        rows: Sequence[int] | np.ndarray,
        captions: Iterable[Sequence[int]],
    ):
        self.store = store
        self.rows = np.asarray(rows)
        tokens, lengths = array("i"), array("i")
        for caption in captions:
            tokens.extend(caption)
            lengths.append(len(caption))
        self.tokens, self.lengths = np.asarray(tokens), np.asarray(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: np.ndarray) -> Batch:
        lengths = self.lengths[index]
        time = np.arange(lengths.max())
        real = time < lengths[:, None]
        at = np.where(real, self.starts[index][:, None] + time, 0)
        tokens = np.where(real, self.tokens[at], PAD)
        rows, pictures = np.unique(self.rows[index], return_inverse=True)
        return Batch(
            self.store.gather(rows) if self.store else torch.from_numpy(rows),
            torch.from_numpy(rows),
            torch.from_numpy(pictures),
            torch.from_numpy(tokens).long(),
            torch.from_numpy(np.flatnonzero(real[:, 1:])),
        )


class LengthBuckets(Sampler[np.ndarray]):
    """Index arrays of `batch_size` captions of similar length; every caption once an epoch.

    Shuffled captions are sorted by length in pools of `pool` batches, so that little is padding
    and batches stay random. Given `pictures` (one number a caption), all captions of a picture
    come together, sorted by the longest, and `batch_size` is met on average: a model that spends
    most of its time on the pictures then looks at each once an epoch.

    The order depends on (seed, epoch) alone. With `shuffle=False`, one pool in a fixed order. Of
    `world_size` processes each takes its share of every batch: together they do what one process
    would, and nothing twice. What is left at the end and too little for two captions (or, given
    `pictures`, two images) a process joins the batch before it. Two captions may be of one image:
    `BatchNorm` takes a single row.

    `state_dict` says how far an epoch has come; where it is loaded, that epoch goes on from there.
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
        pictures: np.ndarray | None = None,
    ):
        pictures = np.arange(len(lengths)) if pictures is None else pictures
        _, self.counts = np.unique(pictures, return_counts=True)
        self.order = np.argsort(pictures, kind="stable")
        self.starts = np.cumsum(self.counts) - self.counts
        self.longest = np.maximum.reduceat(lengths[self.order], self.starts)
        self.size = max(1, round(batch_size / self.counts.mean()))
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.pool = pool
        self.epoch = 0
        self.position = 0
        self._start = {"epoch": 0, "position": 0}
        if world_size > 1 and min(self.size, len(self.longest)) < 2 * world_size:
            raise UserError(
                f"{len(lengths)} captions in batches of {batch_size} are too few for {world_size} "
                "processes, which need two of each batch (of a grid's batch: two pictures); raise "
                "datamodule.batch_size or lower trainer.devices"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; Lightning calls it before each."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were given."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leave out, once, the batches of that epoch that were given before."""
        self._start = state_dict

    def __len__(self) -> int:
        return len(self._cuts()) + 1

    def __iter__(self) -> Iterator[np.ndarray]:
        start = self._start["position"] if self._start["epoch"] == self.epoch else 0
        self._start = {"epoch": 0, "position": 0}
        batches = self._batches()[start:]
        for self.position, batch in enumerate(batches, start + 1):
            mine = batch[self.rank :: self.world_size]
            counts = self.counts[mine]
            first = np.repeat(self.starts[mine] - np.cumsum(counts) + counts, counts)
            yield self.order[first + np.arange(counts.sum())]

    def _batches(self) -> list[np.ndarray]:
        if not self.shuffle:
            return np.split(np.argsort(self.longest, kind="stable"), self._cuts())
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.longest))
        size = self.size * self.pool
        for start in range(0, len(order), size):
            part = order[start : start + size]
            order[start : start + size] = part[np.argsort(self.longest[part], kind="stable")]
        batches = np.split(order, self._cuts())
        random.shuffle(batches)
        return batches

    def _cuts(self) -> np.ndarray:
        last = len(self.longest) - 2 * self.world_size + 1
        return np.arange(self.size, max(self.size, last), self.size)


class BatchLoader(DataLoader[Batch]):
    """A DataLoader over `LengthBuckets` whose place in an epoch travels in checkpoints.

    It draws no random numbers but from a generator of its own, so that opening it changes nothing.
    """

    def __init__(self, dataset: CaptionDataset, sampler: LengthBuckets):
        # The sampler yields whole batches of indices: no item is ever touched alone.
        super().__init__(
            dataset,
            sampler=sampler,
            batch_size=None,
            collate_fn=lambda batch: batch,
            generator=torch.Generator(),
        )

    def state_dict(self) -> dict[str, int]:
        """Return the place in the epoch."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from that place."""
        self.sampler.load_state_dict(state_dict)
