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
from captioning.data import image_list as pictures
from captioning.data.image_files import load_image
from captioning.data.image_list import HIDDEN, LINKS, UNKNOWN, summarize_left_out


def find_pictures(images, listed=b""):
    return pictures.find_pictures(images, listed)[0]


def left_out_of(images):
    return {kind: names for kind, names in pictures.find_pictures(images)[1].items() if names}


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
        ("trip/*.bmp", "no picture, none is there"),
        ("trip/empty", "no picture, none is there"),
        ("-", "standard input names none"),
    ],
)
def test_where_there_is_none_it_is_said(tree, images, told):
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match=told):
        find_pictures(images)


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
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    before = find_pictures(images)
    (tree / name).touch()
    assert find_pictures(images) == before
    if images == "trip" or not name.startswith((".", "sub/.")):  # which * does not match
        assert left_out_of(images)[HIDDEN]


def test_what_lies_in_a_hidden_folder_is_found_by_its_name(tree):
    (tree / ".cache").mkdir()
    (tree / ".cache" / "a.jpg").touch()
    assert find_pictures("trip/.cache") == ["trip/.cache/a.jpg"]
    assert find_pictures("trip/.cache/*.jpg") == ["trip/.cache/a.jpg"]
    assert find_pictures("trip/a/._a.jpg") == ["trip/a/._a.jpg"]


def test_a_pattern_that_spells_an_ending_finds_files_of_that_ending(tree):
    (tree / "a.jpg_large").touch()
    assert find_pictures("trip/*.jpg_large") == ["trip/a.jpg_large"]


def saved(kind):
    file = io.BytesIO()
    mode = {"MSP": "1", "XBM": "1", "BLP": "P"}.get(kind, "RGB")
    Image.effect_noise((32, 32), 50).convert(mode).save(file, kind)
    return file.getvalue()


def test_every_ending_that_pillow_reads_is_an_image(tmp_path):
    for suffix, kind in Image.registered_extensions().items():
        if kind in Image.SAVE and kind not in ("PDF", "PALM", *pictures.UNREAD_FORMATS):
            path = tmp_path / f"a{suffix.upper()}"
            path.write_bytes(saved(kind))
            load_image(path)
            assert str(path) in find_pictures(str(tmp_path)), suffix


@pytest.mark.parametrize("name", ["a.pjpeg", "a.jif", "photo.JFIF", "a.HIF", "a.heic", "a.jpg "])
def test_endings_that_pillow_does_not_know_are_images_too(tmp_path, name):
    (tmp_path / name).touch()
    assert find_pictures(str(tmp_path)) == [str(tmp_path / name)]


@pytest.mark.parametrize("suffix", [".eps", ".ps", ".pdf", ".mpg", ".wmf", ".grib", ".h5", ".fits"])
def test_what_pillow_hands_to_others_is_no_image(tree, suffix):
    (tree / f"a{suffix}").touch()
    assert left_out_of("trip") == {
        HIDDEN: ["trip/a/._a.jpg"],
        UNKNOWN: [f"trip/a{suffix}"],
    }


def test_what_is_left_out_is_a_line(tree):
    for name in ("a.mp4", "b.mp4", "c.xyz", "noending", "notes.md", "a.csv", ".DS_Store"):
        (tree / name).touch()
    (tree / "gone").symlink_to("nowhere")
    assert summarize_left_out(pictures.find_pictures("trip")[1]) == (
        "left out: files of unknown kind (4): a.mp4, b.mp4, c.xyz, noending; left out: links that "
        "lead nowhere or upwards (1): gone; left out: hidden files and folders, thumbnails and "
        "bins (1): ._a.jpg"
    )


def test_captions_beside_images_are_not_counted(tree):
    (tree / "a" / "._a.jpg").unlink()
    (tree / "captions.csv").touch()
    assert summarize_left_out(pictures.find_pictures("trip")[1]) == ""


def test_where_there_is_no_image_what_else_is_there_is_named(tree):
    (tree / "films").mkdir()
    (tree / "films" / "a.mp4").touch()
    with pytest.raises(
        UserError, match=r"none is there; left out: files of unknown kind \(1\): a.mp4"
    ):
        find_pictures("trip/films")


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """Images, a linked folder of more, links that go round, one to a file and one to nothing."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "day").mkdir(parents=True)
    for name in ("in/b.jpg", "in/sub/c.jpg", "out/day/d.jpg", "out/e.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "in" / "aday").symlink_to(tmp_path / "out" / "day")
    (tmp_path / "in" / "sub" / "again").symlink_to(tmp_path / "out" / "day")
    (tmp_path / "in" / "loop").symlink_to(".")
    (tmp_path / "in" / "sub" / "loop").symlink_to("..")
    (tmp_path / "in" / "asub").symlink_to("sub")
    (tmp_path / "out" / "day" / "loop").symlink_to(tmp_path / "out" / "day")
    (tmp_path / "in" / "link.jpg").symlink_to("b.jpg")
    (tmp_path / "in" / "dangling.jpg").symlink_to("nowhere.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


def test_linked_folders_are_looked_through_once(linked):
    direct = ["in/b.jpg", "in/dangling.jpg", "in/link.jpg", "in/sub/c.jpg"]
    assert find_pictures("in") == [*direct, "in/aday/d.jpg"]
    assert sorted(find_pictures("in/**/*.jpg")) == sorted([*direct, "in/aday/d.jpg"])


@pytest.mark.parametrize("place", ["in", "out/day"])
def test_a_link_upwards_is_not_followed_but_named(linked, place):
    (linked.parent / place / "up").symlink_to(linked.parent)
    assert "in/aday/d.jpg" in find_pictures("in")
    assert not [path for path in find_pictures("in") if "up" in path]
    assert [Path(path).name for path in left_out_of("in")[LINKS]] == ["up"]


def test_a_linked_folder_may_hold_another_that_is_linked(linked):
    (linked / "more").symlink_to(linked.parent / "out")
    assert find_pictures("in")[-2:] == ["in/aday/d.jpg", "in/more/e.jpg"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=6))
def test_links_among_folders_never_double_an_image(tmp_path_factory, links):
    root = tmp_path_factory.mktemp("links")
    for name in "abc":
        (root / name).mkdir()
        (root / name / "x.jpg").touch()
    for at, (place, target) in enumerate(links):
        (root / place / f"l{at}").symlink_to(root / target)
    assert find_pictures(str(root)) == [f"{root}/{name}/x.jpg" for name in "abc"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_closed_folder_is_named(tree):
    (tree / "b").chmod(0)
    assert left_out_of("trip")[pictures.CLOSED] == ["trip/b"]
    (tree / "b").chmod(0o700)


def test_importing_changes_nothing_of_pillow():
    program = (
        "from PIL import Image; before = dict(Image.EXTENSION), list(Image.ID)\n"
        "import captioning.data.image_files, captioning.data.image_list\n"
        "assert before == (Image.EXTENSION, Image.ID)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
