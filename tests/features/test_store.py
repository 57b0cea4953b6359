import functools
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from captioning import UserError
from captioning.data.image_files import load_image
from captioning.features import images as images_module
from captioning.features import store as store_module
from captioning.features import store_building as building_module
from captioning.features.store import DamagedError, FeatureStore
from captioning.features.store_building import build_store, encode_shards


@pytest.fixture
def root(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def build(root, encoder, records):
    """Return a function that builds or opens a store of three shards."""
    options = {"root": root, "encoder": encoder, "records": records}
    return functools.partial(build_store, **options, batch_size=1, per_shard=3)


@pytest.fixture
def whole(tmp_path, build):
    """A store of the same images in one shard."""
    return build(root=tmp_path / "whole", per_shard=100)


def test_a_row_holds_the_features_of_its_own_image_in_float16(build, records, encoder):
    store = build(batch_size=3, per_shard=100)
    images = torch.stack([encoder.preprocess(load_image(record.path)) for record in records])
    torch.testing.assert_close(store.get_features(records), encoder(images), rtol=1e-3, atol=1e-3)
    assert store.shape == store.shards[0].shape == (len(records), 512)
    assert store.shards[0].dtype == np.float16 and isinstance(store.shards[0], np.memmap)


def test_images_that_moved_or_were_touched_are_not_encoded_again(
    tmp_path, build, records, monkeypatch
):
    folder = build().folder
    assert build(records=records[1:]).folder != folder
    monkeypatch.setattr(building_module, "encode_shards", None)
    assert build(records=records[::-1]).folder == folder
    os.utime(records[0].path)
    (tmp_path / "moved").mkdir()
    moved = [
        record._replace(path=shutil.move(record.path, tmp_path / "moved")) for record in records
    ]
    assert build(records=moved).folder == folder


def test_images_that_are_swapped_are_encoded_again(build, records):
    first, second = (Path(record.path) for record in records[:2])
    before = build().get_features(records[:2])
    content = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(content)
    after = build().get_features(records[:2])
    assert torch.equal(after, before.flip(0))
    assert not torch.equal(after, before)


def test_an_image_that_changes_while_others_are_encoded_is_encoded_again(
    tmp_path, build, records, monkeypatch
):
    first, *_, last = [record.path for record in sorted(records)]

    def load_and_replace(path):
        if path == last:
            shutil.copy(last, first)
        return load_image(path)

    monkeypatch.setattr(images_module, "load_image", load_and_replace)
    changed = build()
    monkeypatch.undo()
    assert build().folder == changed.folder
    assert np.array_equal(changed.load(), build(root=tmp_path / "new").load())


def test_a_locked_shard_stays_locked_when_the_store_is_complete(
    tmp_path, records, encoder, monkeypatch
):
    """A process waits for a shard's lock, and gets it, just before another writes the manifest."""
    lock_path = tmp_path / "shard-00000.lock"
    late, write_manifest = FileLock(lock_path), building_module._write_manifest

    def lock_and_write(*arguments):
        late.acquire()
        write_manifest(*arguments)

    monkeypatch.setattr(building_module, "_write_manifest", lock_and_write)
    encode_shards(tmp_path, encoder, sorted(records), 2, 4, lambda: "")
    with pytest.raises(Timeout):
        FileLock(lock_path, timeout=0).acquire()


@pytest.mark.parametrize("per_shard", [3, 100])
def test_a_build_that_was_killed_continues_where_it_stopped(
    root, build, whole, records, monkeypatch, per_shard
):
    loaded = []

    def die_at_the_fifth(path):
        loaded.append(path)
        if len(loaded) == 5:
            raise KeyboardInterrupt
        return load_image(path)

    monkeypatch.setattr(building_module, "FLUSH_EVERY", 1)
    monkeypatch.setattr(images_module, "load_image", die_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        build(per_shard=per_shard)
    before = len(loaded)
    resumed = build(per_shard=per_shard)
    assert np.array_equal(resumed.load(), whole.load())
    assert len(loaded) - before < len(records)
    assert not [*root.rglob("*.partial"), *root.rglob("prog*")]


@pytest.mark.parametrize("per_shard", [1, 3, 8])
def test_shards_hold_what_one_file_would(build, whole, records, per_shard):
    cut = build(per_shard=per_shard)
    assert len(cut.shards) == -(-len(records) // per_shard)
    assert torch.equal(cut.gather([7, 0, 3, 3]), whole.gather([7, 0, 3, 3]))
    assert np.array_equal(cut.load(), whole.load())


def test_a_second_process_takes_the_shards_that_are_free(tmp_path, records, encoder, monkeypatch):
    """It starts while the first encodes its first shard, and encodes the other three."""
    arguments = (tmp_path, encoder, sorted(records), 2, 2, lambda: "")
    second = threading.Thread(target=lambda: encode_shards(*arguments))

    def wait_for_the_second(path):
        if path == sorted(records)[0].path and not second.is_alive():
            second.start()
            while len(list(tmp_path.glob("features-*.npy"))) < 3:
                assert second.is_alive()
                time.sleep(0.01)
        return load_image(path)

    monkeypatch.setattr(images_module, "load_image", wait_for_the_second)
    encode_shards(*arguments)
    second.join()
    assert FeatureStore(tmp_path).shape == (8, 512)


def test_rows_are_found_by_any_id(build, records):
    names = ["a", "b/ä.jpg", "b/z.jpg", "c", "漢字.png", "\udc80", "zz", "🙂"]
    renamed = [record._replace(image_id=name) for record, name in zip(records, names, strict=True)]
    store = build(records=renamed)
    assert store.find_rows(names).tolist() == [sorted(names).index(name) for name in names]
    for missing in ("", "b", "zzz", "a name longer than any in the store"):
        with pytest.raises(KeyError, match=repr(missing)):
            store.find_rows(["a", missing])


def test_a_disk_too_small_is_refused_before_encoding(tmp_path, build, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(building_module.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(UserError, match="features_root="):
        build()


def test_unreadable_images_are_named_and_the_others_encoded(build, records):
    Path(records[2].path).write_bytes(b"not an image")
    store = build()
    assert list(store.unreadable) == [records[2].image_id]
    assert records[2].path in store.unreadable[records[2].image_id]
    sums = [store.get_features([record]).abs().sum() for record in records]
    assert [number for number, total in enumerate(sums) if total == 0] == [2]


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def shorten(path):
    os.truncate(path, path.stat().st_size - 2)


@pytest.mark.parametrize("damage", [flip_bit, shorten, Path.unlink])
@pytest.mark.parametrize(
    "file", ["features-00001.npy", "ids.npy", "checksums.npy", "manifest.json"]
)
def test_a_damaged_store_is_refused_and_repaired(root, build, damage, file):
    store = build()
    before, first = store.load(), (store.folder / "features-00000.npy").stat().st_mtime_ns
    damage(store.folder / file)
    if file != "manifest.json" or damage != Path.unlink:
        with pytest.raises(DamagedError, match="run the same command to encode it again"):
            FeatureStore(store.folder)
    assert np.array_equal(build().load(), before)
    if file == "features-00001.npy":  # the others are not encoded again
        assert (store.folder / "features-00000.npy").stat().st_mtime_ns == first
    assert not [*root.rglob("*.partial"), *root.rglob("prog*")]


def test_the_files_of_another_store_are_refused(build, records):
    other, store = build(records=records[:4]), build(records=records[4:])
    before = store.get_features(records[4:])
    for file in other.folder.glob("*.*"):
        shutil.copy(file, store.folder)
    assert torch.equal(build(records=records[4:]).get_features(records[4:]), before)


def test_a_large_store_is_verified_when_it_is_read(build, monkeypatch):
    monkeypatch.setattr(store_module, "VERIFY_ON_OPEN", 0)
    monkeypatch.setattr(store_module, "BLOCK_BYTES", 512 * 2 * 2)
    store = build()
    before = store.load()
    flip_bit(store.folder / "features-00002.npy")
    store = build()
    assert torch.equal(store.gather([0, 5]), torch.from_numpy(before[[0, 5]]))
    for _ in range(2):
        with pytest.raises(DamagedError, match="1 of its shards"):
            store.gather([0, 7])
    assert np.array_equal(build().load(), before)


def test_a_store_without_checksums_is_read_and_repaired(build):
    """As older versions wrote it."""
    store = build()
    before, manifest = store.load(), store_module.read_manifest(store.folder)
    for name in ("key", "ids_crc32", "checksums_crc32"):
        del manifest[name]
    (store.folder / "manifest.json").write_text(json.dumps(manifest))
    (store.folder / "checksums.npy").unlink()
    assert np.array_equal(build().load(), before)
    shorten(store.folder / "features-00001.npy")
    assert np.array_equal(build().load(), before)
