"""The LightningDataModule: records, vocabulary and features, as batches for training."""

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
from captioning.features.store import FeatureStore
from captioning.features.store_building import build_store

log = logging.getLogger(__name__)


@runtime_checkable
class DataSource(Protocol):
    """Where records come from: a folder of files, or drawn scenes."""

    skip_unreadable: bool

    def prepare(self) -> None:
        """Draw or check the files; cheap when that is done."""

    def records(self) -> list[Record]:
        """Return one record per image."""


class CaptionDataModule(pl.LightningDataModule):
    """Encodes the images once, and makes batches of captions and features.

    `batch_size` counts captions. Words with fewer than `min_count` occurrences in the training
    split become `<unk>`. `device` is the encoder's. `resident` keeps all features on the training
    device, in float16 (Flickr8k pooled by a ResNet50: 33 MB; its grid: 1.6 GB). Raises UserError if
    an image cannot be read, unless the source has `skip_unreadable`.
    """

    def __init__(
        self,
        source: DataSource,
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
        self.shuffle = True  # false: the same batches in every epoch, the shortest captions first
        self.splits: dict[str, list[Record]] = {}
        self.vocabulary: Vocabulary
        self.store: FeatureStore | None = None
        self._resident_features: Tensor | None = None

    def read_captions(self) -> None:
        """Draw or check the files, read the records and make the vocabulary; once."""
        if not self.splits:
            self.source.prepare()
            self._take(load_records(self.source))

    def prepare_data(self) -> None:
        """Read the captions and encode each image once."""
        self.read_captions()
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Open the feature store, and leave out the images that it could not read; once."""
        if self.store:
            return
        if not self.splits:  # another process has prepared the files
            self._take(load_records(self.source))
        records = [record for split in self.splits.values() for record in split]
        readable, self.store = open_store(
            records, self.encoder, self.features_root, self.device, self.source.skip_unreadable
        )
        if len(readable) < len(records):
            self._take(readable)
        counts = ", ".join(f"{len(records):,} {split}" for split, records in self.splits.items())
        log.info("images: %s; vocabulary: %d words", counts, len(self.vocabulary))

    def _take(self, records: Sequence[Record]) -> None:
        splits = group_by_split(records)
        captions = [caption for record in splits["train"] for caption in record.captions]
        self.vocabulary = Vocabulary.from_captions(captions, self.min_count)
        self.splits = splits

    def train_dataloader(self) -> BatchLoader:
        """Return every training caption once, in batches of similar length, random by `shuffle`."""
        return self._loader("train", self.shuffle)

    def val_dataloader(self) -> BatchLoader:
        """Return every validation caption once, for the teacher-forced loss."""
        return self._loader("val", shuffle=False)

    def _loader(self, split: str, shuffle: bool) -> BatchLoader:
        pairs = [(record, caption) for record in self.splits[split] for caption in record.captions]
        dataset = CaptionDataset(
            None if self.resident else self.store,
            self.store.find_rows([record.image_id for record, _ in pairs]),
            (self.vocabulary.encode(caption) for _, caption in pairs),
        )
        sampler = LengthBuckets(
            dataset.lengths,
            self.batch_size,
            shuffle,
            self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            images=dataset.store_rows if len(self.store.shape) == 3 else None,  # a grid
        )
        # From pinned memory Lightning copies without waiting for the GPU.
        on_gpu = bool(self.trainer) and self.trainer.strategy.root_device.type == "cuda"
        return BatchLoader(dataset, sampler, pin_memory=on_gpu)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make features float32 on the device; take them from there, if they are resident."""
        features = batch.features
        if self.resident:
            if self._resident_features is None:
                self._resident_features = torch.from_numpy(self.store.load())
            self._resident_features = self._resident_features.to(batch.tokens.device)
            features = self._resident_features[batch.store_rows]
        return batch._replace(features=features.float())


def load_records(source: DataSource) -> list[Record]:
    """Return the records that belong to a split; the other images are not encoded."""
    return [record for record in source.records() if record.split]


def group_by_split(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records of each split. Raises UserError if train or val has fewer than two.

    CIDEr-D compares images, and batch norm captions, with one another.
    """
    splits: dict[str, list[Record]] = {}
    for record in records:
        splits.setdefault(record.split, []).append(record)
    for split in ("train", "val"):
        count = len(splits.get(split, ()))
        if count < 2:
            raise UserError(
                f"the {split} split has {count} of the {len(records)} images and needs two; of "
                "four or more, name some in a column split of captions.csv, or try "
                "data.split_seed=1"
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
    """Build or open the images' feature store; return the readable records, and the store.

    `options` go to `build_store`. Raises UserError for unreadable images unless `skip_unreadable`.
    """
    store = build_store(features_root, encoder, records, device, **options)
    if not store.unreadable:
        return records, store
    reasons = "; ".join(list(store.unreadable.values())[:5])
    message = f"{len(store.unreadable)} of {len(records)} images cannot be read: {reasons}"
    if not skip_unreadable:
        raise UserError(f"{message}. Repair them, or go on with data.skip_unreadable=true")
    log.warning("%s. Going on without them (data.skip_unreadable=true)", message)
    return [record for record in records if record.image_id not in store.unreadable], store
