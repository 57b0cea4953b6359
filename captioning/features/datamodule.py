"""The LightningDataModule: records, vocabulary and feature store, wrapped for training.

A data source (captioning.data) and a frozen encoder enter; loaders of `Batch` leave, and for
validation the pictures themselves, each once. Next: models/.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.features.batches import Batch, BatchLoader, CaptionDataset, LengthBuckets
from captioning.features.encoder import Encoder
from captioning.features.store import FeatureStore, build_store

log = logging.getLogger(__name__)


@runtime_checkable
class Source(Protocol):
    """Where records come from: a folder of files, or drawn scenes."""

    skip_unreadable: bool

    def prepare(self) -> None:
        """Draw or check the files; cheap when that is done."""

    def records(self) -> list[Record]:
        """Return one record an image."""


class CaptionDataModule(pl.LightningDataModule):
    """Owns the data: `prepare_data` builds the feature store once, `setup` opens it.

    `batch_size` counts captions; words seen fewer than `min_count` times in the training split
    become `<unk>`. `device` is where the encoder runs. `resident` keeps the features of all
    pictures on the training device, in float16: images x regions x features x 2 bytes (Flickr8k
    pooled by a ResNet50: 33 MB; its grid: 1.6 GB). Pictures that cannot be read stop the run
    before training, unless the source's `skip_unreadable` lets it go on without them.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        features_root: str,
        batch_size: int = 128,
        min_count: int = 5,
        device: str = "cpu",
        seed: int = 0,
        resident: bool = False,
    ):
        super().__init__()
        self.source = source
        self.encoder = encoder
        self.features_root = features_root
        self.batch_size = batch_size
        self.min_count = min_count
        self.device = device
        self.seed = seed
        self.resident = resident
        self._features: Tensor | None = None
        self.splits: dict[str, list[Record]] = {}
        self.vocabulary: Vocabulary
        self.store: FeatureStore

    def prepare_data(self) -> None:
        """Draw or check the files and encode each image once."""
        if not self.splits:
            self.source.prepare()
            self._open()

    def setup(self, stage: str | None = None) -> None:
        """Read the records, open the feature store, make the vocabulary. Idempotent."""
        if not self.splits:
            self._open()

    def _open(self) -> None:
        records = split_records(self.source)
        by_split(records)  # before they are encoded
        records, self.store = open_store(
            records, self.encoder, self.features_root, self.device, self.source.skip_unreadable
        )
        splits = by_split(records)
        captions = [caption for record in splits["train"] for caption in record.captions]
        self.vocabulary = Vocabulary.from_captions(captions, self.min_count)
        self.splits = splits
        counts = ", ".join(f"{len(records):,} {split}" for split, records in splits.items())
        log.info("images: %s; vocabulary: %d words", counts, len(self.vocabulary))

    def train_dataloader(self) -> BatchLoader:
        """Every training caption once, in random batches of similar length."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        """Every validation caption once, for the teacher-forced loss."""
        return self._loader("val", shuffle=False)

    def _loader(self, split: str, shuffle: bool) -> BatchLoader:
        pairs = [(record, caption) for record in self.splits[split] for caption in record.captions]
        dataset = CaptionDataset(
            None if self.resident else self.store,
            self.store.rows([record.image_id for record, _ in pairs]),
            (self.vocabulary.encode(caption) for _, caption in pairs),
        )
        rank, world_size = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        is_grid = len(self.store.shape) == 3
        buckets = LengthBuckets(
            dataset.lengths,
            self.batch_size,
            shuffle,
            self.seed,
            rank,
            world_size,
            pictures=dataset.rows if is_grid else None,
        )
        return BatchLoader(dataset, buckets)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Fill in features that are resident on the batch's device."""
        if not self.resident:
            return batch
        if self._features is None:
            self._features = torch.from_numpy(self.store.load())
        self._features = self._features.to(batch.tokens.device)
        return batch._replace(features=self._features[batch.features].float())

    def features(self, records: Sequence[Record]) -> Tensor:
        """Return the features of those pictures, `[n d]` or `[n r d]`."""
        return self.store.of(records)

    @property
    def feature_dim(self) -> int:
        """The length of one feature vector."""
        return self.store.shape[-1]


def split_records(source: Source) -> list[Record]:
    """Return the pictures that belong to a split: those that are encoded."""
    return [record for record in source.records() if record.split]


def by_split(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records of each split; raise UserError where train or val has fewer than two.

    CIDEr-D compares pictures and batch norm captions: one alone will not do.
    """
    splits: dict[str, list[Record]] = {}
    for record in records:
        splits.setdefault(record.split, []).append(record)
    for split in ("train", "val"):
        found = len(splits.get(split, ()))
        if found < 2:
            raise UserError(
                f"the {split} split has {found} of the {len(records)} pictures and needs two; name "
                "some in a column split of captions.csv, or try data.split_seed=1"
            )
    return splits


def open_store(
    records: list[Record],
    encoder: Encoder,
    features_root: str,
    device: str = "cpu",
    skip_unreadable: bool = False,
    **options: int,
) -> tuple[list[Record], FeatureStore]:
    """Encode each picture once, or open what did; return the readable ones and their features.

    `options` go to `build_store`. Raises UserError where some pictures cannot be read, unless
    `skip_unreadable`.
    """
    store = build_store(features_root, encoder, records, device, **options)
    bad = store.unreadable
    if not bad:
        return records, store
    reasons = "; ".join(list(bad.values())[:5])
    found = f"{len(bad)} of {len(records)} pictures cannot be read: {reasons}"
    if not skip_unreadable:
        raise UserError(f"{found}. Repair them, or go on with data.skip_unreadable=true")
    log.warning("%s. Going on without them (data.skip_unreadable=true)", found)
    return [record for record in records if record.image_id not in bad], store
