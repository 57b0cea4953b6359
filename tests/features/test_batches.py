import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioning import UserError
from captioning.data.vocabulary import PAD
from captioning.features.batches import CaptionDataset, LengthBuckets
from captioning.features.store import build_store


def test_a_batch_is_what_item_by_item_collation_gives(tmp_path, records, encoder):
    store = build_store(tmp_path / "features", encoder, records)
    captions = [[1, 5, 2], [1, 6, 7, 8, 2], [1, 9, 2]]
    dataset = CaptionDataset(store, [4, 0, 4], captions)
    batch = dataset[np.array([2, 1])]
    assert batch.tokens.tolist() == [[1, 9, 2, PAD, PAD], [1, 6, 7, 8, 2]]
    torch.testing.assert_close(batch.features[batch.image_index], store.gather(np.array([4, 0])))


def test_a_batch_holds_each_picture_once(tmp_path, records, encoder):
    store = build_store(tmp_path / "features", encoder, records)
    dataset = CaptionDataset(store, [4, 0, 4], [[1, 5, 2]] * 3)
    batch = dataset[np.array([0, 1, 2])]
    torch.testing.assert_close(batch.features, store.gather(np.array([0, 4])))
    assert batch.image_index.tolist() == [1, 0, 1]


def test_words_are_the_places_of_what_is_to_be_said(tmp_path, records, encoder):
    store = build_store(tmp_path / "features", encoder, records)
    dataset = CaptionDataset(store, [0, 1], [[1, 5, 2], [1, 6, 7, 8, 2]])
    batch = dataset[np.array([0, 1])]
    assert batch.tokens[:, 1:].flatten()[batch.target_positions].tolist() == [5, 2, 6, 7, 8, 2]


lengths = st.lists(st.integers(2, 30), min_size=1, max_size=200).map(np.array)


@given(lengths, st.integers(1, 17), st.booleans(), st.integers(0, 3))
def test_every_caption_comes_once_an_epoch(lengths, batch_size, shuffle, epoch):
    buckets = LengthBuckets(lengths, batch_size, shuffle, pool=4)
    buckets.set_epoch(epoch)
    batches = list(buckets)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == len(buckets)
    assert all(len(batch) <= batch_size + 1 for batch in batches)
    assert batch_size == 1 or len(lengths) == 1 or all(len(batch) > 1 for batch in batches)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=99), st.integers(1, 17), st.booleans())
def test_captions_of_a_picture_can_be_kept_together(pictures, batch_size, shuffle):
    pictures = np.array(pictures)
    lengths = np.arange(2, 2 + len(pictures))
    batches = list(LengthBuckets(lengths, batch_size, shuffle, pool=2, pictures=pictures))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sum(len(set(pictures[batch])) for batch in batches) == len(set(pictures))


@given(lengths.filter(lambda lengths: len(lengths) >= 8), st.integers(8, 17), st.integers(2, 4))
def test_processes_share_every_batch(lengths, batch_size, world_size):
    shares = [
        list(LengthBuckets(lengths, batch_size, True, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    taken = [at for share in shares for batch in share for at in batch.tolist()]
    assert sorted(taken) == list(range(len(lengths)))
    assert all(len(batch) >= 2 for share in shares for batch in share)
    # Where the end needs no joining, each batch is what one process has.
    alone = list(LengthBuckets(lengths, batch_size, True))
    if len(alone) == len(shares[0]):
        for batch, *parts in zip(alone, *shares, strict=True):
            assert sorted(np.concatenate(parts).tolist()) == sorted(batch.tolist())


@pytest.mark.parametrize(("captions", "batch_size"), [(100, 7), (7, 100)])
def test_too_little_for_so_many_processes_is_said(captions, batch_size):
    with pytest.raises(UserError, match=r"raise datamodule\.batch_size"):
        LengthBuckets(np.arange(2, 2 + captions), batch_size, True, world_size=4)


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = np.arange(2, 200)

    def order(seed, epoch):
        buckets = LengthBuckets(lengths, 8, shuffle=True, seed=seed)
        buckets.set_epoch(epoch)
        return np.concatenate(list(buckets)).tolist()

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)


@pytest.mark.parametrize("shuffle", [True, False])
def test_little_of_a_batch_is_padding(shuffle):
    lengths = np.random.default_rng(0).integers(5, 30, 10_000)
    batches = list(LengthBuckets(lengths, 64, shuffle))
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded / lengths.sum() < 1.03


@given(lengths, st.integers(0, 60), st.booleans())
def test_an_epoch_goes_on_where_it_was_left_and_the_next_begins_anew(lengths, taken, shuffle):
    def buckets():
        made = LengthBuckets(lengths, 4, shuffle, pool=4)
        made.set_epoch(1)
        return made

    whole, left, resumed = list(buckets()), buckets(), buckets()
    taken = min(taken, len(whole))
    for _, _ in zip(range(taken), left, strict=False):
        pass
    resumed.load_state_dict(left.state_dict())
    rest = list(resumed)
    assert len(rest) == len(whole) - taken
    for one, other in zip(rest, whole[taken:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(list(resumed)) == len(whole)


def test_a_place_in_another_epoch_leaves_nothing_out():
    buckets = LengthBuckets(np.arange(2, 12), 2, True)
    buckets.load_state_dict({"epoch": 0, "position": 3})
    buckets.set_epoch(1)
    assert len(list(buckets)) == len(buckets)
