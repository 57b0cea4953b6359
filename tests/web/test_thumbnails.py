"""What visitors bring, pictures or not."""

import re

import pytest
from PIL import Image

from captioning import UserError
from captioning.web.thumbnails import open_picture, strip


def bomb(path):
    """A megabyte on disk, and 900 million pixels."""
    Image.new("1", (30000, 30000)).save(path)


def postscript(path):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text("a letter"), "cannot be read as an image"),
        (postscript, "cannot be read as an image"),
        (lambda path: path.write_bytes(b""), "cannot be read as an image"),
        (bomb, "cannot be read as an image: .*900000000 pixels"),
        (lambda path: None, "cannot be read as an image"),
    ],
)
def test_what_is_no_picture_is_a_sentence_without_the_machines_folders(tmp_path, make, told):
    path = tmp_path / "holiday.jpg"
    make(path)
    with pytest.raises(UserError, match=rf"^holiday\.jpg {told}") as caught:
        open_picture(str(path))
    assert str(tmp_path) not in str(caught.value)


def test_a_half_of_a_picture_is_a_sentence(tmp_path):
    path = tmp_path / "half.png"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=r"^half\.png cannot be read as an image"):
        open_picture(str(path))


def test_samples_that_cannot_be_read_are_left_out_and_the_others_keep_their_number(tmp_path):
    for at, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (300, 200)).save(tmp_path / name)
        if at == 1:
            (tmp_path / name).write_text("a letter")
    html = strip([str(tmp_path / name) for name in ("a.png", "b.png", "c.png")])
    assert re.findall(r'data-at="(\d)"', html) == ["0", "2"]


def test_the_page_reads_what_training_reads(tmp_path):
    for name in ("a.jp2", "a.tga", "a.ppm", "a.ico"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / name)
        assert open_picture(str(tmp_path / name)).getpixel((9, 9))[0] > 250
