import json
import multiprocessing

import numpy as np
import pytest
import torch

from captioning.data.records import UserError
from captioning.features import images as images_module
from captioning.features import store as store_module
from captioning.features.images import load_image
from captioning.features.store import FeatureStore, build_store


def test_a_row_holds_the_features_of_its_own_image(tmp_path, records, encoder):
    store = build_store(tmp_path / "features", encoder, records, batch_size=3)
    for record in records:
        image = encoder.preprocess(load_image(record.path))
        stored = store.gather([store.rows[record.image_id]])
        torch.testing.assert_close(stored, encoder(image[None]), rtol=1e-3, atol=1e-3)


def test_features_are_float16_and_memory_mapped(tmp_path, records, encoder):
    store = build_store(tmp_path, encoder, records)
    assert isinstance(store.features, np.memmap)
    assert store.features.dtype == np.float16
    assert store.features.shape == (len(records), 512)


def test_the_second_build_encodes_nothing(tmp_path, records, encoder, monkeypatch):
    first = build_store(tmp_path, encoder, records)
    monkeypatch.setattr(store_module, "_encode_all", None)
    assert build_store(tmp_path, encoder, records[::-1]).folder == first.folder


def test_another_set_of_images_has_a_folder_of_its_own(tmp_path, records, encoder):
    all_of_them = build_store(tmp_path, encoder, records)
    assert build_store(tmp_path, encoder, records[1:]).folder != all_of_them.folder


def test_a_changed_picture_is_encoded_again(tmp_path, records, encoder):
    before = build_store(tmp_path / "features", encoder, records)
    load_image(records[0].path).resize((77, 77)).save(records[0].path)
    assert build_store(tmp_path / "features", encoder, records).folder != before.folder


def test_a_build_that_was_killed_goes_on_where_it_stopped(tmp_path, records, encoder, monkeypatch):
    whole = build_store(tmp_path / "whole", encoder, records)
    asked = []

    def dies_at_the_fifth(path):
        asked.append(path)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return load_image(path)

    monkeypatch.setattr(store_module, "FLUSH_EVERY", 1)
    monkeypatch.setattr(images_module, "load_image", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "killed", encoder, records, batch_size=1)
    monkeypatch.setattr(images_module, "load_image", load_image)
    resumed = build_store(tmp_path / "killed", encoder, records, batch_size=1)
    np.testing.assert_allclose(resumed.features, whole.features, rtol=1e-2, atol=1e-3)
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_unreadable_pictures_are_named_and_the_others_kept(tmp_path, records, encoder):
    with open(records[2].path, "wb") as file:
        file.write(b"not a picture")
    store = build_store(tmp_path / "features", encoder, records)
    assert list(store.unreadable) == [records[2].image_id]
    assert records[2].path in store.unreadable[records[2].image_id]
    assert store.gather([store.rows[records[0].image_id]]).abs().sum() > 0


def test_a_missing_picture_stops_before_encoding(tmp_path, records, encoder):
    gone = records[0]._replace(path=str(tmp_path / "gone.jpg"))
    with pytest.raises(UserError, match=r"gone\.jpg cannot be opened"):
        build_store(tmp_path / "features", encoder, [gone, *records[1:]])


def test_a_store_of_wrong_length_is_refused(tmp_path, records, encoder):
    store = build_store(tmp_path, encoder, records)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    manifest["image_ids"].append("another.jpg")
    (store.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="delete it"):
        FeatureStore(store.folder)


def _build(root, encoder, records, results):
    built = build_store(root, encoder, records)
    results.put((str(built.folder), float(built.features.sum())))


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
