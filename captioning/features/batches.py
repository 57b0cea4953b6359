"""Batches of captions of similar length, each with the features of its images."""

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
    """Captions, and the features of their images, each image once.

    `features` are float16 as stored, and float32 as the model gets them.
    `store_rows` are the images' rows in the feature store; `image_index` is each caption's position
    in `features`. `tokens` holds `<bos>` words `<eos>`, then `<pad>`. `target_positions` are the
    positions of the words to be predicted in `tokens[:, 1:].flatten()`, computed here, as a GPU
    would wait for them.
    """

    features: Float[Tensor, "image *region feature"] | Int[Tensor, " image"]
    store_rows: Int[Tensor, " image"]
    image_index: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch time"]
    target_positions: Int[Tensor, " word"]


class CaptionDataset(Dataset[Batch]):
    """Encoded captions and their images' rows in the store; an array of indices gives a `Batch`.

    Without a store, `features` are the rows, to be replaced on the device.
    """

    def __init__(
        self,
        store: FeatureStore | None,
        store_rows: Sequence[int] | np.ndarray,
        captions: Iterable[Sequence[int]],
    ):
        self.store = store
        self.store_rows = np.asarray(store_rows)
        tokens, lengths = array("i"), array("i")
        for caption in captions:
            tokens.extend(caption)
            lengths.append(len(caption))
        self.tokens, self.lengths = np.asarray(tokens), np.asarray(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.store_rows)

    def __getitem__(self, index: np.ndarray) -> Batch:
        lengths = self.lengths[index]
        time = np.arange(lengths.max())
        is_token = time < lengths[:, None]
        positions = np.where(is_token, self.starts[index][:, None] + time, 0)
        tokens = np.where(is_token, self.tokens[positions], PAD)
        store_rows, image_index = np.unique(self.store_rows[index], return_inverse=True)
        return Batch(
            self.store.gather(store_rows) if self.store else torch.from_numpy(store_rows),
            torch.from_numpy(store_rows),
            torch.from_numpy(image_index),
            torch.from_numpy(tokens).long(),
            torch.from_numpy(np.flatnonzero(is_token[:, 1:])),
        )


class LengthBuckets(Sampler[np.ndarray]):
    """Yields the indices of `batch_size` captions of similar length; every caption once per epoch.

    Shuffled captions are sorted by length in pools of `pool` batches, so that little is padding
    and batches stay random. The order depends on (seed, epoch) alone. With `shuffle=False`, all are
    one pool, in a fixed order. Given `images` (a number for each caption), all captions of an image
    come together, so that its grid is read once per epoch, and `batch_size` is met on average.

    Of `world_size` processes each takes its share of every batch. A remainder of fewer
    than two captions (or images) per process joins the batch before it: batch norm needs two rows.
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
        images: np.ndarray | None = None,
    ):
        images = np.arange(len(lengths)) if images is None else images
        # Groups are shuffled: the captions of an image, or single captions.
        _, group_sizes = np.unique(images, return_counts=True)
        self.caption_order = np.argsort(images, kind="stable")
        self.ends = np.cumsum(group_sizes)
        self.starts = self.ends - group_sizes
        self.longest = np.maximum.reduceat(lengths[self.caption_order], self.starts)
        size, count = max(1, round(batch_size / group_sizes.mean())), len(self.longest)
        self.cuts = np.arange(size, max(size, count - 2 * world_size + 1), size)
        self.shuffle = shuffle
        self.seed = seed
        self.rank_slice = slice(rank, None, world_size)
        self.pool_size = size * pool
        self.epoch = self.position = 0
        self.resume_from = {"epoch": 0, "position": 0}
        if world_size > 1 and min(size, count) < 2 * world_size:
            raise UserError(
                f"{len(lengths)} captions in batches of {batch_size} are too few for {world_size} "
                "processes, which need two of each batch (of a grid's batch: two images); raise "
                "datamodule.batch_size or lower trainer.devices"
            )

    def longest_captions(self, batch_size: int) -> np.ndarray:
        """Return the indices of the largest batch that `batch_size` could make."""
        size = max(1, round(batch_size / (self.ends - self.starts).mean()))
        groups = np.argsort(self.longest)[-size - 1 :]  # a remainder may join
        return np.concatenate([self.caption_order[self.starts[g] : self.ends[g]] for g in groups])

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch. Lightning calls it before each."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were yielded."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Skip, once, the batches of that epoch that were yielded before."""
        self.resume_from = state_dict

    def __len__(self) -> int:
        return len(self.cuts) + 1

    def __iter__(self) -> Iterator[np.ndarray]:
        start = self.resume_from["position"] if self.resume_from["epoch"] == self.epoch else 0
        self.resume_from = {"epoch": 0, "position": 0}
        for position, batch in enumerate(self._batches()[start:], start + 1):
            self.position = position
            share = batch[self.rank_slice]
            groups = zip(self.starts[share].tolist(), self.ends[share].tolist(), strict=True)
            yield np.concatenate([self.caption_order[start:end] for start, end in groups])

    def _batches(self) -> list[np.ndarray]:
        """Return the groups of each batch of this epoch."""
        if not self.shuffle:
            return np.split(np.argsort(self.longest, kind="stable"), self.cuts)
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.longest))
        for start in range(0, len(order), self.pool_size):
            pool = order[start : start + self.pool_size]
            pool[:] = pool[np.argsort(self.longest[pool], kind="stable")]
        batches = np.split(order, self.cuts)
        rng.shuffle(batches)
        return batches


class BatchLoader(DataLoader[Batch]):
    """A DataLoader over `LengthBuckets` whose position in an epoch is saved in checkpoints."""

    def __init__(self, dataset: CaptionDataset, sampler: LengthBuckets, pin_memory: bool = False):
        # batch_size=None: the sampler yields the indices of whole batches. The loader's own
        # generator leaves the global random numbers unchanged.
        options = {"generator": torch.Generator(), "pin_memory": pin_memory}
        super().__init__(dataset, batch_size=None, sampler=sampler, **options)
        self.state_dict = sampler.state_dict
        self.load_state_dict = sampler.load_state_dict
