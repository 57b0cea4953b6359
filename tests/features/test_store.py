import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from PIL import Image

from captioning import UserError
from captioning.data.image_files import load_image
from captioning.features import checksums as checksums_module
from captioning.features import images as images_module
from captioning.features import shards as shards_module
from captioning.features import store as store_module
from captioning.features.checksums import DamagedError
from captioning.features.store import FeatureStore, build_store


def test_a_row_holds_the_features_of_its_own_image(tmp_path, records, encoder):
    store = build_store(tmp_path / "features", encoder, records, batch_size=3)
    for record in records:
        image = encoder.preprocess(load_image(record.path))
        stored = store.of([record])
        torch.testing.assert_close(stored, encoder(image[None]), rtol=1e-3, atol=1e-3)


def test_features_are_float16_and_memory_mapped(tmp_path, records, encoder):
    store = build_store(tmp_path, encoder, records)
    features = np.load(store.folder / "features-00000.npy")
    assert features.dtype == np.float16
    assert features.shape == store.shape == (len(records), 512)
    store.gather([0])
    assert isinstance(store._opened[0], np.memmap)


def test_the_second_build_encodes_nothing(tmp_path, records, encoder, monkeypatch):
    first = build_store(tmp_path, encoder, records)
    monkeypatch.setattr(store_module, "encode_shards", None)
    assert build_store(tmp_path, encoder, records[::-1]).folder == first.folder


def test_another_set_of_images_has_a_folder_of_its_own(tmp_path, records, encoder):
    all_of_them = build_store(tmp_path, encoder, records)
    assert build_store(tmp_path, encoder, records[1:]).folder != all_of_them.folder


def test_pictures_that_change_places_are_encoded_again(tmp_path, records, encoder):
    """The same names, numbers of bytes and times of modification, in another order."""
    paths = [record.path for record in records[:2]]
    for path in paths:
        Image.open(path).save(path, "BMP")
        os.utime(path, ns=(10**18, 10**18))
    before = build_store(tmp_path / "features", encoder, records).of(records[:2])
    os.rename(paths[0], tmp_path / "other")
    os.rename(paths[1], paths[0])
    os.rename(tmp_path / "other", paths[1])
    after = build_store(tmp_path / "features", encoder, records).of(records[:2])
    assert torch.equal(after, before.flip(0))
    assert not torch.equal(after, before)


def test_pictures_that_moved_or_were_touched_are_not_encoded_again(
    tmp_path, records, encoder, monkeypatch
):
    before = build_store(tmp_path / "features", encoder, records)
    monkeypatch.setattr(store_module, "encode_shards", None)
    os.utime(records[0].path)
    assert build_store(tmp_path / "features", encoder, records).folder == before.folder
    (tmp_path / "moved").mkdir()
    moved = [
        record._replace(path=shutil.move(record.path, tmp_path / "moved")) for record in records
    ]
    assert build_store(tmp_path / "features", encoder, moved).folder == before.folder


def test_a_picture_that_changes_while_others_are_encoded_is_encoded_again(
    tmp_path, records, encoder, monkeypatch
):
    first, *_, last = [record.path for record in sorted(records)]

    def replaced_meanwhile(path):
        if path == last:
            shutil.copy(last, first)
        return load_image(path)

    monkeypatch.setattr(images_module, "load_image", replaced_meanwhile)
    changed = build_store(tmp_path / "features", encoder, records, batch_size=1)
    monkeypatch.undo()
    assert build_store(tmp_path / "features", encoder, records).folder == changed.folder
    sound = build_store(tmp_path / "sound", encoder, records, batch_size=1)
    assert np.array_equal(changed.load(), sound.load())


def test_a_shard_that_somebody_has_is_nobody_elses_when_the_store_is_whole(
    tmp_path, records, encoder, monkeypatch
):
    """One waits for a shard's lock, and gets it, just before the other makes the store whole."""
    late, merge = FileLock(tmp_path / "store" / "shard-00000.lock"), shards_module._merge

    def with_another(*arguments):
        late.acquire()
        merge(*arguments)

    monkeypatch.setattr(shards_module, "_merge", with_another)
    (tmp_path / "store").mkdir()
    shards_module.encode_shards(tmp_path / "store", encoder, sorted(records), "cpu", 2, 4)
    with pytest.raises(Timeout):
        FileLock(tmp_path / "store" / "shard-00000.lock", timeout=0).acquire()


@pytest.mark.parametrize("per_shard", [3, 100])
def test_a_build_that_was_killed_goes_on_where_it_stopped(
    tmp_path, records, encoder, monkeypatch, per_shard
):
    whole = build_store(tmp_path / "whole", encoder, records)
    asked = []

    def dies_at_the_fifth(path):
        asked.append(path)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return load_image(path)

    options = {"batch_size": 1, "per_shard": per_shard}
    monkeypatch.setattr(shards_module, "FLUSH_EVERY", 1)
    monkeypatch.setattr(images_module, "load_image", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "killed", encoder, records, **options)
    before = len(asked)
    resumed = build_store(tmp_path / "killed", encoder, records, **options)
    np.testing.assert_allclose(resumed.load(), whole.load(), rtol=1e-2, atol=1e-3)
    assert len(asked) - before < len(records)
    assert not [*(tmp_path / "killed").rglob("*.partial"), *(tmp_path / "killed").rglob("prog*")]


@pytest.mark.parametrize("per_shard", [1, 3, 8])
def test_shards_hold_what_one_file_would(tmp_path, records, encoder, per_shard):
    whole = build_store(tmp_path / "whole", encoder, records, batch_size=1)
    cut = build_store(tmp_path / "cut", encoder, records, batch_size=1, per_shard=per_shard)
    assert len(list(cut.folder.glob("features-*.npy"))) == -(-len(records) // per_shard)
    rows = np.array([7, 0, 3, 3])
    assert torch.equal(cut.gather(rows), whole.gather(rows))
    assert np.array_equal(cut.load(), whole.load())


def test_who_comes_later_takes_the_shards_that_nobody_has(tmp_path, records, encoder, monkeypatch):
    """A second one starts while the first encodes its first shard, and does the other three."""
    folder = tmp_path / "store"
    folder.mkdir()
    arguments = (folder, encoder, sorted(records), "cpu", 2, 2)
    second = threading.Thread(target=lambda: shards_module.encode_shards(*arguments))

    def waits_for_the_second(path):
        if path == first and not second.is_alive():
            second.start()
            while len(list(folder.glob("features-*.npy"))) < 3:
                assert second.is_alive()
                time.sleep(0.01)
        return load_image(path)

    first = sorted(records)[0].path
    monkeypatch.setattr(images_module, "load_image", waits_for_the_second)
    shards_module.encode_shards(*arguments)
    second.join()
    assert FeatureStore(folder).shape == (8, 512)


def test_rows_are_found_by_any_id(tmp_path, records, encoder):
    names = ["a", "b/ä.jpg", "b/z.jpg", "c", "漢字.png", "\udc80", "zz", "🙂"]
    renamed = [one._replace(image_id=name) for one, name in zip(records, names, strict=True)]
    store = build_store(tmp_path / "features", encoder, renamed)
    in_order = sorted(names)
    assert store.rows(names).tolist() == [in_order.index(name) for name in names]
    for missing in ("", "b", "zzz", "a name longer than any that the store has"):
        with pytest.raises(KeyError, match=repr(missing)):
            store.rows(["a", missing])


def test_a_disk_too_small_is_said_before_encoding(tmp_path, records, encoder, monkeypatch):
    full = shards_module.shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(shards_module.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(UserError, match="features_root="):
        build_store(tmp_path / "features", encoder, records)


def test_unreadable_pictures_are_named_and_the_others_kept(tmp_path, records, encoder):
    with open(records[2].path, "wb") as file:
        file.write(b"not a picture")
    store = build_store(tmp_path / "features", encoder, records)
    assert list(store.unreadable) == [records[2].image_id]
    assert records[2].path in store.unreadable[records[2].image_id]
    assert store.of(records[:1]).abs().sum() > 0


def test_a_missing_picture_stops_before_encoding(tmp_path, records, encoder):
    gone = records[0]._replace(path=str(tmp_path / "gone.jpg"))
    with pytest.raises(UserError, match=r"gone\.jpg cannot be opened"):
        build_store(tmp_path / "features", encoder, [gone, *records[1:]])


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def shorten(path):
    os.truncate(path, path.stat().st_size - 2)


@pytest.mark.parametrize("harm", [flip, shorten, Path.unlink])
@pytest.mark.parametrize(
    "file", ["features-00001.npy", "ids.npy", "checksums.npy", "manifest.json"]
)
def test_what_is_damaged_is_refused_and_encoded_again(tmp_path, records, encoder, harm, file):
    root = tmp_path / "features"
    options = {"batch_size": 1, "per_shard": 3}
    store = build_store(root, encoder, records, **options)
    whole, first = store.load(), (store.folder / "features-00000.npy").stat().st_mtime_ns
    harm(store.folder / file)
    if file != "manifest.json" or harm != Path.unlink:
        with pytest.raises(DamagedError, match="the same command encodes that again"):
            FeatureStore(store.folder)
    assert np.array_equal(build_store(root, encoder, records, **options).load(), whole)
    if file == "features-00001.npy":  # the others are as they were
        assert (store.folder / "features-00000.npy").stat().st_mtime_ns == first
    assert not [*root.rglob("*.partial"), *root.rglob("prog*")]


def test_the_manifest_of_another_store_is_found(tmp_path, records, encoder):
    root = tmp_path / "features"
    one = build_store(root, encoder, records[:4], batch_size=1)
    other = build_store(root, encoder, records[4:], batch_size=1)
    whole = other.load()
    for file in one.folder.glob("*.*"):
        shutil.copy(file, other.folder)
    again = build_store(root, encoder, records[4:], batch_size=1)
    assert np.array_equal(again.load(), whole)
    assert again.rows([record.image_id for record in records[4:]]).tolist()


def test_a_large_store_is_checked_where_it_is_read(tmp_path, records, encoder, monkeypatch):
    root = tmp_path / "features"
    options = {"batch_size": 1, "per_shard": 3}
    whole = build_store(root, encoder, records, **options).load()
    monkeypatch.setattr(store_module, "AT_ONCE", 0)
    monkeypatch.setattr(checksums_module, "BLOCK", 512 * 2 * 2)
    flip(build_store(root, encoder, records, **options).folder / "features-00002.npy")
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "AT_ONCE", 0)
    store = build_store(root, encoder, records, **options)
    assert torch.equal(store.gather([0, 5]), torch.from_numpy(whole[[0, 5]]).float())
    for _ in range(2):
        with pytest.raises(DamagedError, match="1 of its shards"):
            store.gather([0, 7])
    assert np.array_equal(build_store(root, encoder, records, **options).load(), whole)


def _build(root, encoder, records, results):
    built = build_store(root, encoder, records)
    results.put((str(built.folder), float(built.load().sum())))


@pytest.mark.slow
def test_processes_at_once_build_one_store(tmp_path, records, encoder):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (tmp_path / "features", encoder, records, results)
    processes = [context.Process(target=_build, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
