"""Which files a path, a folder, a pattern or a list names, and what is left out."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning import UserError
from captioning.data import image_list
from captioning.data.image_files import UNREAD_FORMATS, load_image
from captioning.data.image_list import CLOSED, HIDDEN, LINKS, UNKNOWN, summarize_left_out
from captioning.data.photographs import PHOTOGRAPHS


def find_images(images, listed=b""):
    return image_list.find_images(images, listed)[0]


def left_out_of(images):
    return image_list.find_images(images)[1]


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Images of one name in two folders, and files that are none."""
    trip = tmp_path / "trip"
    touch(trip, "b/a.jpg", "a/a.jpg", "a/deep/er/x.HEIC", "z.webp", "a/a.txt", "a/._a.jpg")
    monkeypatch.chdir(tmp_path)
    return trip


def test_a_folder_is_searched_at_any_depth_in_a_fixed_order(tree):
    images = ["trip/z.webp", "trip/a/a.jpg", "trip/a/deep/er/x.HEIC", "trip/b/a.jpg"]
    assert find_images("trip") == images
    (tree.parent / "link").symlink_to(tree)
    assert len(find_images("link")) == 4


def test_names_and_patterns(tree):
    touch(tree, "[1].jpg", "a.jpg_large", ".cache/a.jpg")
    for name in ("a/a.txt", "a/._a.jpg", "[1].jpg"):  # any name, hidden, or like a pattern
        assert find_images(f"trip/{name}") == [f"trip/{name}"]
    assert find_images("trip/**/a.*") == ["trip/a/a.jpg", "trip/b/a.jpg"]
    assert find_images("trip/*.jpg_large") == ["trip/a.jpg_large"]  # an ending that is spelt out
    assert find_images("trip/.cache") == find_images("trip/.cache/*.jpg") == ["trip/.cache/a.jpg"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_standard_input_lists_names(end):
    names = ["b.jpg", " a 'quoted', name.jpg ", "dir/b.jpg"]
    listed = end.join([*names, "b.jpg", "./b.jpg", ""]).encode()
    assert find_images("-", listed) == names
    assert find_images("-", b"a\nb.jpg\0c.jpg\0") == ["a\nb.jpg", "c.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_from_windows(tree, encoding):
    touch(tree, "é.jpg", ' "q".jpg ')
    names = ["trip/é.jpg", 'trip/ "q".jpg ', "# a remark", "trip/b/a.jpg"]
    listed = [
        "trip/é.jpg",
        'trip/ "q".jpg ',
        "# a remark",
        '"trip/b/a.jpg"',
        "  trip/b/a.jpg\t",
        "",
    ]
    assert find_images("-", "\r\n".join(listed).encode(encoding)) == names


def test_names_of_any_bytes_are_opened_again(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).touch()
    assert [os.fsencode(path) for path in find_images(str(tmp_path))] == [name]
    assert [os.fsencode(path) for path in find_images("-", name)] == [name]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("https://example.org/a.jpg", "nothing is fetched from the network; download"),
        ("nowhere", "there is no such file or folder"),
        ("trip/*.bmp", "no image, none is there"),
        ("trip/empty", "no image, none is there"),
        ("trip/films", r"none is there; left out: files of unknown kind \(1\): a.mp4"),
        ("-", "standard input names none"),
    ],
)
def test_no_image_is_an_error(tree, images, message):
    (tree / "empty").mkdir()
    touch(tree, "films/a.mp4")
    with pytest.raises(UserError, match=message):
        find_images(images)


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/a.jpg",
        ".thumbnails/a.jpg",
        ".Trash-1000/files/a.jpg",
        "sub/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "$RECYCLE.BIN/$R1.jpg",
        "System Volume Information/a.png",
        "__MACOSX/a.jpg",
        "lost+found/a.jpg",
        "#recycle/a.jpg",
        ".hidden.jpg",
        "...jpg",
        "sub/._a.jpg",
    ],
)
@pytest.mark.parametrize("images", ["trip", "trip/**/*.*"])
def test_hidden_files_and_bins_are_left_out_and_counted(tree, name, images):
    before = find_images(images)
    touch(tree, name)
    assert find_images(images) == before
    if images == "trip" or not name.startswith((".", "sub/.")):  # which * does not match
        assert left_out_of(images)[HIDDEN]


def saved(kind):
    file = io.BytesIO()
    mode = {"MSP": "1", "XBM": "1", "BLP": "P"}.get(kind, "RGB")
    Image.effect_noise((32, 32), 50).convert(mode).save(file, kind)
    return file.getvalue()


def test_every_ending_that_pillow_reads_is_an_image(tmp_path):
    for suffix, kind in Image.registered_extensions().items():
        if kind in Image.SAVE and kind not in ("PDF", "PALM", *UNREAD_FORMATS):
            path = tmp_path / f"a{suffix.upper()}"
            path.write_bytes(saved(kind))
            load_image(path)
            assert str(path) in find_images(str(tmp_path)), suffix


SUFFIXES = {True: [".pjpeg", ".JFIF", ".HIF", ".heic", ".jpg "], False: [".eps", ".mpg", ".grib"]}


@pytest.mark.parametrize("is_image", SUFFIXES)
def test_endings_that_pillow_does_not_know_or_hands_to_others(tmp_path, is_image):
    paths = sorted(str(tmp_path / f"a{suffix}") for suffix in SUFFIXES[is_image])
    touch(tmp_path, *paths, "b.jpg")
    images = [path for path in find_images(str(tmp_path)) if not path.endswith("b.jpg")]
    assert images == (paths if is_image else [])
    assert left_out_of(str(tmp_path)) == ({} if is_image else {UNKNOWN: paths})


def test_what_is_left_out_is_a_line(tree):
    (tree / "a" / "._a.jpg").unlink()
    touch(tree, "captions.csv", "notes.md")  # texts beside images are not counted
    assert summarize_left_out(left_out_of("trip")) == ""
    touch(tree, "a.mp4", "b.mp4", "c.xyz", "noending", ".DS_Store", "._a.jpg")
    (tree / "gone").symlink_to("nowhere")
    assert summarize_left_out(left_out_of("trip")) == (
        "left out: hidden files and folders, thumbnails and bins (1): ._a.jpg; left out: files of "
        "unknown kind (4): a.mp4, b.mp4, c.xyz, noending; left out: links that lead nowhere or "
        "upwards (1): gone"
    )


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """Images, a linked folder of others, links in circles, one to a file and one to nothing."""
    touch(tmp_path, "in/b.jpg", "in/sub/c.jpg", "out/day/d.jpg", "out/e.jpg")
    for link, target in {
        "in/aday": tmp_path / "out/day",
        "in/sub/again": tmp_path / "out/day",
        "in/loop": ".",
        "in/sub/loop": "..",
        "in/asub": "sub",
        "out/day/loop": tmp_path / "out/day",
        "in/link.jpg": "b.jpg",
        "in/dangling.jpg": "nowhere.jpg",
    }.items():
        (tmp_path / link).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


def test_linked_folders_are_searched_once(linked):
    direct = ["in/b.jpg", "in/dangling.jpg", "in/link.jpg", "in/sub/c.jpg"]
    assert find_images("in") == [*direct, "in/aday/d.jpg"]
    assert sorted(find_images("in/**/*.jpg")) == sorted([*direct, "in/aday/d.jpg"])


@pytest.mark.parametrize("place", ["in", "out/day"])  # which in/aday is a link to
def test_a_link_upwards_is_not_followed_but_named(linked, place):
    (linked.parent / place / "up").symlink_to(linked.parent)
    assert "in/aday/d.jpg" in find_images("in")
    assert not [path for path in find_images("in") if "up" in path]
    assert [Path(path).name for path in left_out_of("in")[LINKS]] == ["up"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=6))
def test_links_among_folders_never_double_an_image(tmp_path_factory, links):
    root = tmp_path_factory.mktemp("links")
    touch(root, "a/x.jpg", "b/x.jpg", "c/x.jpg")
    for number, (place, target) in enumerate(links):
        (root / place / f"l{number}").symlink_to(root / target)
    assert find_images(str(root)) == [f"{root}/{name}/x.jpg" for name in "abc"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_closed_folder_is_named(tree):
    (tree / "b").chmod(0)
    assert left_out_of("trip")[CLOSED] == ["trip/b"]
    (tree / "b").chmod(0o700)


def test_importing_changes_nothing_of_pillow():
    program = (
        "from PIL import Image; before = dict(Image.EXTENSION), list(Image.ID)\n"
        "import captioning.data.image_files, captioning.data.image_list\n"
        "assert before == (Image.EXTENSION, Image.ID)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_photographs_are_those_of_other_packages_unless_there_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(find_images("photographs")) == len(PHOTOGRAPHS)
    Path("photographs").mkdir()
    Path("photographs", "mine.jpg").touch()
    assert find_images("photographs") == ["photographs/mine.jpg"]


def test_photographs_of_packages_that_are_missing_are_left_out(monkeypatch):
    monkeypatch.setattr("captioning.data.photographs.find_spec", lambda package: None)
    with pytest.raises(UserError, match="photographs: no image, none is there"):
        find_images("photographs")
