from functools import partial
from types import SimpleNamespace

import pytest
import torch
from datamodules import make_data

from captioning.features.encoder import Encoder


@pytest.fixture
def make(records, tmp_path):
    """Return a function that returns a prepared datamodule."""
    return partial(make_data, records, root=tmp_path / "features")


@pytest.fixture
def make_batches(make):
    """Return a function that returns the training batches of an epoch."""

    def batches(encoder, **options):
        data = make(encoder, **options)
        return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]

    return batches


def test_what_is_read_before_encoding_is_not_read_again(make, encoder):
    data = make(encoder)
    again = type(data)(data.source, encoder, data.features_root, min_count=1)
    again.read_captions()
    assert again.vocabulary.words == data.vocabulary.words and not again.store
    del again.source.records
    again.setup()
    assert again.splits == data.splits and again.store.shape == data.store.shape


def test_resident_features_are_those_of_the_store(make_batches, encoder):
    resident, gathered = make_batches(encoder, resident=True), make_batches(encoder)
    assert len(resident) == len(gathered) == 2
    for batch, expected in zip(resident, gathered, strict=True):
        assert all(map(torch.equal, batch, expected))


@pytest.mark.parametrize(("device", "is_pinned"), [("cpu", False), ("cuda", True)])
def test_batches_for_a_gpu_are_pinned(make, encoder, device, is_pinned):
    data = make(encoder)
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    assert data.train_dataloader().pin_memory == data.val_dataloader().pin_memory == is_pinned


def test_features_are_float16_on_their_way_and_float32_where_they_arrive(make, encoder):
    data = make(encoder)
    batch = next(iter(data.train_dataloader()))
    assert batch.features.dtype == torch.float16
    assert data.on_after_batch_transfer(batch, 0).features.dtype == torch.float32


@pytest.mark.parametrize("features", ["pooled", "grid"])
def test_captions_of_an_image_come_together_for_grids(make_batches, features):
    batches = make_batches(Encoder("resnet18", None, features, image_size=64))
    assert [len(batch.tokens) for batch in batches] == [6, 6]
    images = sum(len(batch.features) for batch in batches)
    assert images == 4 if features == "grid" else 4 < images <= 12
