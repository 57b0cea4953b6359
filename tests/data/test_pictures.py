import os
from pathlib import Path

import pytest

from captioning.data.pictures import find_pictures
from captioning.data.records import UserError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Pictures of one name in two folders, and what is no picture."""
    for name in ("b/a.jpg", "a/a.jpg", "a/deep/er/x.HEIC", "z.webp", "a/a.txt", "a/._a.jpg"):
        path = tmp_path / "trip" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "trip"


def test_a_folder_is_looked_through_at_any_depth_in_a_fixed_order(tree):
    found = ["trip/z.webp", "trip/a/a.jpg", "trip/a/deep/er/x.HEIC", "trip/b/a.jpg"]
    assert find_pictures("trip") == found


def test_a_folder_may_be_a_link(tree):
    (tree.parent / "link").symlink_to(tree)
    assert len(find_pictures("link")) == 4


def test_a_picture_alone_may_be_called_anything(tree):
    assert find_pictures("trip/a/a.txt") == ["trip/a/a.txt"]


def test_a_pattern_takes_pictures_only(tree):
    assert find_pictures("trip/**/a.*") == ["trip/a/a.jpg", "trip/b/a.jpg"]


def test_a_name_may_look_like_a_pattern(tree):
    (tree / "[1].jpg").touch()
    assert find_pictures("trip/[1].jpg") == ["trip/[1].jpg"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_standard_input_lists_names(end):
    names = ["b.jpg", " a 'quoted', name.jpg ", "dir/b.jpg"]
    listed = end.join([*names, "b.jpg", "./b.jpg", ""]).encode()
    assert find_pictures("-", listed) == names


def test_a_name_separated_by_nul_may_hold_a_line_break():
    assert find_pictures("-", b"a\nb.jpg\0c.jpg\0") == ["a\nb.jpg", "c.jpg"]


def test_names_of_any_bytes_are_opened_again(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).touch()
    assert [os.fsencode(path) for path in find_pictures(str(tmp_path))] == [name]
    assert [os.fsencode(path) for path in find_pictures("-", name)] == [name]


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ("https://example.org/a.jpg", "nothing is fetched from the network; download"),
        ("nowhere", "there is no such file or folder"),
        ("trip/*.bmp", r"no picture, none is there \(\.avif"),
        ("trip/empty", "no picture, none is there"),
        ("-", "standard input names none"),
    ],
)
def test_where_there_is_none_it_is_said(tree, images, told):
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match=told):
        find_pictures(images)
