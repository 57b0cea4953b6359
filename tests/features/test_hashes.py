import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning import UserError
from captioning.features import hashes as hashes_module
from captioning.features.hashes import hash_images

sha256_of = hashlib.file_digest


def hash_all(paths, root):
    """Return the hashes as a list of 32 bytes each."""
    return [row.tobytes() for row in hash_images(paths, root).view(np.uint8).reshape(-1, 32)]


def expected_hashes(paths):
    return [hashlib.sha256(Path(path).read_bytes()).digest() for path in paths]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def reads(monkeypatch):
    """The files that are read from now on; the clock of their file system never stands still."""
    names = []

    def counted(file, name):
        names.append(file.name)
        return sha256_of(file, name)

    monkeypatch.setattr(hashes_module.hashlib, "file_digest", counted)
    monkeypatch.setattr(hashes_module, "CLOCK_TICK", -1_000_000_000)
    return names


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "images" / "sub"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.bmp").write_bytes(bytes([number]) * 100)
    return [str(path) for path in sorted(folder.iterdir())]


def test_files_are_read_once_whatever_their_order_or_the_working_folder(
    tmp_path, root, paths, reads, monkeypatch
):
    hash_images(paths[1:3], root)
    assert sorted(reads) == paths[1:3]
    assert hash_all(paths, root) == expected_hashes(paths)
    assert hash_all(paths[:0:-1], root) == expected_hashes(paths[:0:-1])
    monkeypatch.chdir(tmp_path / "images")
    hash_images([os.path.relpath(path) for path in paths], root)
    assert sorted(reads) == paths


def swap(first, second):
    os.rename(first, f"{first}.other")
    os.rename(second, first)
    os.rename(f"{first}.other", second)


def swap_folders(first, second):
    swap(first.parent, second.parent)


def overwrite(first, second):
    first.write_bytes(second.read_bytes())
    os.utime(first, ns=(10**18, 10**18))


@pytest.mark.parametrize("change", [swap, swap_folders, overwrite])
def test_other_bytes_of_the_same_size_and_time_are_read_again(tmp_path, root, reads, change):
    paths = [tmp_path / "images" / name / "0.bmp" for name in "ab"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(path.parent.name.encode())
        os.utime(path, ns=(10**18, 10**18))
    hash_images([*map(str, paths)], root)
    change(*paths)
    assert hash_all([*map(str, paths)], root) == expected_hashes(paths)


def test_a_file_of_this_very_moment_is_read_again(root, paths, reads, monkeypatch):
    """A change within the same tick of a coarse clock would not show in its times."""
    monkeypatch.setattr(hashes_module, "CLOCK_TICK", 10**12)
    for _ in range(2):
        hash_images(paths, root)
    assert sorted(reads) == sorted(2 * paths)


def test_a_file_that_changes_while_it_is_read_is_read_again(root, paths, reads, monkeypatch):
    def changed_meanwhile(file, name):
        digest = sha256_of(file, name)
        with open(file.name, "r+b") as target:
            target.write(b"x")
        return digest

    monkeypatch.setattr(hashes_module.hashlib, "file_digest", changed_meanwhile)
    hash_images(paths[:1], root)
    monkeypatch.setattr(hashes_module.hashlib, "file_digest", sha256_of)
    assert hash_all(paths[:1], root) == expected_hashes(paths[:1])


@pytest.mark.parametrize("content", [b"", b"x" * 500, b"\x93NUMPY\x01\x00"])
def test_a_damaged_cache_is_made_anew(root, paths, reads, content):
    hash_images(paths, root)
    (cache,) = root.glob("hashes-*.npy")
    cache.write_bytes(content)
    assert hash_all(paths, root) == expected_hashes(paths)
    reads.clear()
    hash_images(paths, root)
    assert reads == []


def test_a_folder_that_cannot_be_written_to_costs_only_time(tmp_path, paths):
    (tmp_path / "file").touch()
    assert hash_all(paths, tmp_path / "file" / "features") == expected_hashes(paths)


def test_an_unreadable_file_has_no_hash_and_a_missing_one_is_named(tmp_path, root, paths):
    folder = tmp_path / "images" / "folder.jpg"
    folder.mkdir()
    assert hash_all([*paths, str(folder)], root)[-1] == bytes(32)
    with pytest.raises(UserError, match=r"gone\.jpg cannot be opened"):
        hash_images([*paths, str(tmp_path / "gone.jpg")], root)


def test_of_several_at_once_one_reads(root, paths, reads):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hash_images, 4 * [paths], 4 * [root]))
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
        assert hash_all([*map(str, paths)], folder / "features") == expected_hashes(paths)
