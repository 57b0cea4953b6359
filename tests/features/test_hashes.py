import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning import UserError
from captioning.features import hashes as hashes_module
from captioning.features.hashes import hash_images


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).digest()


def raw(hashes):
    return [row.tobytes() for row in hashes.view(np.uint8).reshape(-1, 32)]


@pytest.fixture
def reads(monkeypatch):
    """The files that are read from now on, of file systems whose clock never stands still."""
    read, digest = [], hashlib.file_digest

    def counted(file, name):
        read.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashes_module.hashlib, "file_digest", counted)
    monkeypatch.setattr(hashes_module, "CLOCK_TICK", -1_000_000_000)
    return read


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "images" / "sub"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.bmp").write_bytes(bytes([number]) * 100)
    return [str(path) for path in sorted(folder.iterdir())]


def test_a_second_look_reads_nothing(tmp_path, paths, reads):
    first = hash_images(paths, tmp_path / "features")
    assert sorted(reads) == paths
    assert raw(hash_images(paths[::-1], tmp_path / "features"))[::-1] == raw(first)
    assert sorted(reads) == paths


def test_a_relative_path_is_the_same_file(tmp_path, paths, reads, monkeypatch):
    hash_images(paths, tmp_path / "features")
    monkeypatch.chdir(tmp_path / "images")
    hash_images([os.path.relpath(path) for path in paths], tmp_path / "features")
    assert sorted(reads) == paths


def test_only_what_is_new_is_read(tmp_path, paths, reads):
    hash_images(paths[1:3], tmp_path / "features")
    reads.clear()
    hash_images(paths, tmp_path / "features")
    assert sorted(reads) == [paths[0], *paths[3:]]
    reads.clear()
    hash_images(paths[1:], tmp_path / "features")
    assert reads == []


def swap(first, second):
    os.rename(first, f"{first}.other")
    os.rename(second, first)
    os.rename(f"{first}.other", second)


def overwrite(first, second):
    before = os.stat(first)
    with open(second, "rb") as source, open(first, "r+b") as target:
        target.write(source.read())
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [swap, overwrite])
def test_other_bytes_of_the_same_size_and_time_are_read_again(tmp_path, paths, reads, change):
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    hash_images(paths, tmp_path / "features")
    change(paths[0], paths[1])
    wanted = [sha256(path) for path in paths]
    assert raw(hash_images(paths, tmp_path / "features")) == wanted


def test_folders_that_change_places_are_read_again(tmp_path, reads):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.bmp").write_bytes(name.encode())
    paths = [str(tmp_path / "images" / name / "0.bmp") for name in "ab"]
    hash_images(paths, tmp_path / "features")
    swap(tmp_path / "images" / "a", tmp_path / "images" / "b")
    assert raw(hash_images(paths, tmp_path / "features")) == [sha256(path) for path in paths]


def test_a_file_of_this_very_moment_is_read_again(tmp_path, paths, reads, monkeypatch):
    """A change within the same tick of a coarse clock would not show in its times."""
    monkeypatch.setattr(hashes_module, "CLOCK_TICK", 10**12)
    for _ in range(2):
        hash_images(paths, tmp_path / "features")
    assert sorted(reads) == sorted(2 * paths)


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, paths, reads, monkeypatch):
    digest = hashlib.file_digest

    def changed_meanwhile(file, name):
        found = digest(file, name)
        with open(file.name, "r+b") as target:
            target.write(b"x")
        return found

    monkeypatch.setattr(hashes_module.hashlib, "file_digest", changed_meanwhile)
    hash_images(paths[:1], tmp_path / "features")
    monkeypatch.setattr(hashes_module.hashlib, "file_digest", digest)
    wanted = [sha256(paths[0])]
    assert raw(hash_images(paths[:1], tmp_path / "features")) == wanted


@pytest.mark.parametrize("content", [b"", b"x" * 500, b"\x93NUMPY\x01\x00"])
def test_damaged_hashes_are_made_anew(tmp_path, paths, reads, content):
    first = hash_images(paths, tmp_path / "features")
    (kept,) = (tmp_path / "features").glob("hashes-*.npy")
    kept.write_bytes(content)
    assert raw(hash_images(paths, tmp_path / "features")) == raw(first)
    reads.clear()
    hash_images(paths, tmp_path / "features")
    assert reads == []


def test_a_place_that_cannot_be_written_costs_time_only(tmp_path, paths, caplog):
    (tmp_path / "file").touch()
    wanted = [sha256(path) for path in paths]
    assert raw(hash_images(paths, tmp_path / "file" / "features")) == wanted


def test_what_cannot_be_read_has_no_hash_and_what_is_missing_is_named(tmp_path, paths):
    (tmp_path / "images" / "folder.jpg").mkdir()
    paths = [*paths, str(tmp_path / "images" / "folder.jpg")]
    assert raw(hash_images(paths, tmp_path / "features"))[-1] == bytes(32)
    with pytest.raises(UserError, match=r"gone\.jpg cannot be opened"):
        hash_images([*paths, str(tmp_path / "gone.jpg")], tmp_path / "features")


def test_of_several_at_once_one_reads(tmp_path, paths, reads):
    threads = [
        threading.Thread(target=hash_images, args=(paths, tmp_path / "features")) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reads) == paths


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9), st.randoms())
def test_any_files_in_any_order_have_their_own_hashes(tmp_path_factory, contents, random):
    folder = tmp_path_factory.mktemp("any")
    paths = [folder / os.fsdecode(b"%d \xff.jpg" % number) for number in range(len(contents))]
    for _ in range(2):
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        random.shuffle(paths)
        found = hash_images([str(path) for path in paths], folder / "features")
        assert raw(found) == [sha256(path) for path in paths]
