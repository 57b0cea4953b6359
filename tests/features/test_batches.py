import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioning import UserError
from captioning.data.vocabulary import PAD
from captioning.features.batches import CaptionDataset, LengthBuckets
from captioning.features.store_building import build_store


def test_a_batch_holds_padded_captions_and_each_image_once(tmp_path, records, encoder):
    store = build_store(tmp_path / "features", encoder, records)
    dataset = CaptionDataset(store, [4, 0, 4], [[1, 5, 2], [1, 6, 7, 8, 2], [1, 9, 2]])
    batch = dataset[np.array([2, 1, 0])]
    assert batch.tokens.tolist() == [[1, 9, 2, PAD, PAD], [1, 6, 7, 8, 2], [1, 5, 2, PAD, PAD]]
    assert batch.store_rows.tolist() == [0, 4]
    torch.testing.assert_close(batch.features, store.gather([0, 4]))
    assert batch.image_index.tolist() == [1, 0, 1]
    targets = batch.tokens[:, 1:].flatten()[batch.target_positions]
    assert targets.tolist() == [9, 2, 6, 7, 8, 2, 5, 2]


lengths = st.lists(st.integers(2, 30), min_size=1, max_size=200).map(np.array)


@given(lengths, st.integers(1, 17), st.booleans(), st.integers(0, 3))
def test_every_caption_comes_once_an_epoch(lengths, batch_size, shuffle, epoch):
    buckets = LengthBuckets(lengths, batch_size, shuffle, pool=4)
    buckets.set_epoch(epoch)
    batches = list(buckets)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == len(buckets)
    assert all(len(batch) <= batch_size + 1 for batch in batches)
    largest = lengths[buckets.longest_captions(batch_size)]
    assert all(len(batch) <= len(largest) for batch in batches)
    assert all(lengths[batch].sum() <= largest.sum() for batch in batches)
    assert lengths.max() == largest.max()
    assert batch_size == 1 or len(lengths) == 1 or all(len(batch) > 1 for batch in batches)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=99), st.integers(1, 17), st.booleans())
def test_captions_of_an_image_can_be_kept_together(images, batch_size, shuffle):
    images = np.array(images)
    lengths = np.arange(2, 2 + len(images))
    batches = list(LengthBuckets(lengths, batch_size, shuffle, pool=2, images=images))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sum(len(set(images[batch])) for batch in batches) == len(set(images))


@given(lengths.filter(lambda lengths: len(lengths) >= 8), st.integers(8, 17), st.integers(2, 4))
def test_processes_share_every_batch(lengths, batch_size, world_size):
    shares = [
        list(LengthBuckets(lengths, batch_size, True, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    captions = [caption for share in shares for batch in share for caption in batch.tolist()]
    assert sorted(captions) == list(range(len(lengths)))
    assert all(len(batch) >= 2 for share in shares for batch in share)
    # If the last batches are not joined, each batch is that of a single process.
    batches = list(LengthBuckets(lengths, batch_size, True))
    if len(batches) == len(shares[0]):
        for batch, *parts in zip(batches, *shares, strict=True):
            assert sorted(np.concatenate(parts).tolist()) == sorted(batch.tolist())


@pytest.mark.parametrize(("captions", "batch_size"), [(100, 7), (7, 100)])
def test_too_few_captions_for_the_processes_are_refused(captions, batch_size):
    with pytest.raises(UserError, match=r"raise datamodule\.batch_size"):
        LengthBuckets(np.arange(2, 2 + captions), batch_size, True, world_size=4)


def make_buckets(lengths, epoch, shuffle=True, seed=0):
    buckets = LengthBuckets(lengths, 4, shuffle, seed, pool=4)
    buckets.set_epoch(epoch)
    return buckets


def test_the_order_depends_on_seed_and_epoch_alone():
    first, same, *others = (
        np.concatenate(list(make_buckets(np.arange(2, 200), epoch, seed=seed))).tolist()
        for seed, epoch in [(1, 3), (1, 3), (1, 4), (2, 3)]
    )
    assert first == same
    assert first not in others


@pytest.mark.parametrize("shuffle", [True, False])
def test_little_of_a_batch_is_padding(shuffle):
    lengths = np.random.default_rng(0).integers(5, 30, 10_000)
    batches = list(LengthBuckets(lengths, 64, shuffle))
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded / lengths.sum() < 1.03


@given(lengths, st.integers(0, 60), st.booleans())
def test_an_interrupted_epoch_is_continued_and_the_next_is_whole(lengths, position, shuffle):
    whole, interrupted, resumed = (make_buckets(lengths, 1, shuffle) for _ in range(3))
    batches = list(whole)
    position = min(position, len(batches))
    for _, _ in zip(range(position), interrupted, strict=False):
        pass
    resumed.load_state_dict(interrupted.state_dict())
    rest = list(resumed)
    assert [batch.tolist() for batch in rest] == [batch.tolist() for batch in batches[position:]]
    assert len(list(resumed)) == len(batches)
    resumed.load_state_dict({"epoch": 0, "position": 3})  # in another epoch
    assert len(list(resumed)) == len(batches)
