"""What the page says, without a browser."""

import base64
import csv
import io
import re

import pytest
import torch
from PIL import Image

from captioning.captioner import Captioner
from captioning.data.records import UserError
from captioning.features.images import Preprocess
from captioning.page import answers


@pytest.fixture(scope="module")
def captioners(checkpoints):
    return {path.stem: Captioner.from_checkpoint(path) for path in checkpoints}


def maps(html):
    """Return the words of a sentence with their levels, 0 to 255 a region."""
    words = re.findall(r'data-map="([0-9a-f]+)">([^<]*)<', html)
    return [(word, list(bytes.fromhex(levels))) for levels, word in words]


def test_words_carry_their_attention_relative_to_the_most():
    looked = [("a", torch.tensor([[0.1, 0.4], [0.3, 0.2]])), ("<eos>", torch.full((2, 2), 0.25))]
    html = answers.sentence("a", looked)
    assert maps(html) == [("a", [64, 255, 191, 128])]
    assert 'data-side="2"' in html


def test_a_sentence_reads_as_written_though_its_words_are_taken_apart():
    even = torch.full((1, 1), 1.0)
    words = ["do", "n't", "-lrb-", "dogs", "<b>", "-rrb-"]
    html = answers.sentence("don't (dogs <b>)", [(word, even) for word in words])
    assert re.sub(r"</?span[^>]*>", "", html) == "don&#x27;t (dogs &lt;b&gt;)"
    assert [word for word, _ in maps(html)] == ["do", "n&#x27;t", "dogs", "&lt;b&gt;"]


def test_a_strangers_words_and_labels_are_text_not_html(captioners):
    picture = Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 20).convert("RGB")
    for one in captioners.values():
        html = answers.card("<script>", one, picture, "nats")
        assert "&lt;script&gt;" in html
        assert "<script" not in html
        assert "<i" not in html


def test_a_file_name_is_text_not_html(tmp_path, captioners):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.new("RGB", (8, 8)).save(path)
    for html in (answers.look(str(path), captioners, ""), *answers.table([str(path)], captioners)):
        assert "onerror" in html
        assert "<img src=x" not in html


@pytest.mark.parametrize(
    ("resize", "size", "place"),
    [
        (None, (200, 100), "left:0.00%;top:0.00%;width:100.00%;height:100.00%"),
        (256, (200, 100), "left:28.12%;top:6.25%;width:43.75%;height:87.50%"),
        (224, (100, 200), "left:0.00%;top:25.00%;width:100.00%;height:50.00%"),
    ],
)
def test_attention_is_laid_over_what_the_encoder_sees(resize, size, place):
    preprocess = Preprocess(224, resize, [0.5] * 3, [0.5] * 3, "bilinear")
    assert answers._place(Image.new("RGB", size), preprocess) == place


def bomb(path):
    """A megabyte on disk, and 900 million pixels."""
    Image.new("1", (30000, 30000)).save(path)


def postscript(path):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text("a letter"), "is not a picture"),
        (postscript, "is not a picture"),
        (lambda path: path.write_bytes(b""), "is not a picture"),
        (bomb, "cannot be read as a picture: .*900000000 pixels"),
        (lambda path: None, "cannot be read as a picture"),
    ],
)
def test_what_is_no_picture_is_a_sentence_without_the_machines_folders(tmp_path, make, told):
    path = tmp_path / "holiday.jpg"
    make(path)
    with pytest.raises(UserError, match=rf"^holiday\.jpg {told}") as caught:
        answers.open_picture(str(path))
    assert str(tmp_path) not in str(caught.value)


def test_a_half_of_a_picture_is_a_sentence(tmp_path):
    path = tmp_path / "half.png"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=r"^half\.png cannot be read as a picture"):
        answers.open_picture(str(path))


def rows(html):
    data = re.search(r'href="data:text/csv;base64,([^"]+)"', html)[1]
    return list(csv.reader(io.StringIO(base64.b64decode(data).decode())))


def test_many_pictures_become_a_csv_of_their_captions(tmp_path, captioners):
    paths = []
    for at in range(answers.CHUNK + 3):
        paths.append(tmp_path / f"{at:02}, ü.png")
        Image.new("RGB", (20, 20), (at, 90, 200 - 9 * at)).save(paths[-1])
    paths[2].write_text("a letter")
    parts = list(answers.table(list(map(str, paths)), captioners))
    assert len(parts) == 2
    assert "data:text/csv" not in parts[0]
    assert "02, ü.png is not a picture" in parts[1]
    del paths[2]
    said = [one.captions(paths) for one in captioners.values()]
    expected = [list(row) for row in zip((path.name for path in paths), *said, strict=True)]
    assert rows(parts[1]) == [["image", "attention", "lstm"], *expected]


def test_one_captioners_column_is_called_caption(tmp_path, captioners):
    path = tmp_path / "one.png"
    Image.new("RGB", (20, 20)).save(path)
    [html] = answers.table([str(path)], {"lstm": captioners["lstm"]})
    assert rows(html) == [["image", "caption"], ["one.png", captioners["lstm"](path)]]


def test_where_nothing_can_be_read_there_is_nothing_to_save(tmp_path, captioners):
    [html] = answers.table([str(tmp_path / "gone.png")], captioners)
    assert "gone.png cannot be read" in html
    assert "text/csv" not in html


def test_samples_that_cannot_be_read_are_left_out_and_the_others_keep_their_number(tmp_path):
    for at, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (300, 200)).save(tmp_path / name)
        if at == 1:
            (tmp_path / name).write_text("a letter")
    html = answers.strip([str(tmp_path / name) for name in ("a.png", "b.png", "c.png")])
    assert re.findall(r'data-at="(\d)"', html) == ["0", "2"]
