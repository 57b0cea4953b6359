"""The HTML of the demo page's answers, without a browser."""

import base64
import csv
import io
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from captioning import UserError
from captioning.captioner import Captioner
from captioning.search.beam import Hypotheses
from captioning.web.demo_answers import (
    ALTERNATIVES,
    CHUNK,
    FRAGMENTS,
    attention_parts,
    open_image,
    render_answer,
    render_image,
    render_table,
)


def save_image(path, size=(20, 20), colour="black"):
    Image.new("RGB", size, colour).save(path)
    return path


def csv_rows(html):
    data = re.search(r'href="data:text/csv;base64,([^"]+)"', html)[1]
    return list(csv.reader(io.StringIO(base64.b64decode(data).decode())))


def test_words_have_their_attention_relative_to_the_largest():
    weights = torch.tensor([[0.1, 0.4], [0.0, 0.225]])
    parts = attention_parts("a", [("a", weights), ("<eos>", torch.full((2, 2), 0.25))])
    assert parts[1] == ("a", 2, bytes([191, 255, 128, 223]).hex(), pytest.approx(0.4))


def test_parts_join_to_the_caption_as_written():
    text, words = "don't (dogs <b>)", ["do", "n't", "-lrb-", "dogs", "<b>", "-rrb-"]
    parts = attention_parts(text, [(word, torch.full((1, 1), 1.0)) for word in words])
    assert "".join(part for part, *_ in parts) == text
    assert [part for part, side, *_ in parts if side] == ["do", "n't", "dogs", "<b>"]


def test_labels_words_and_file_names_are_escaped(tmp_path, captioners):
    path = str(save_image(tmp_path / "<img src=x onerror=alert(1)>.png"))
    named = {f"<script>{label}": captioner for label, captioner in captioners.items()}
    for html in (render_image(path, named, "nats"), *render_table([path], named)):
        assert "&lt;script&gt;" in html and "onerror" in html
        assert not re.search("<script|<i>|<img src=x", html)


@pytest.mark.parametrize("use_rerank", [False, True])
def test_a_rerank_is_used_after_any_search_where_it_is_chosen(tmp_path, captioners, use_rerank):
    def worst_first(hypotheses, features):
        return Hypotheses(hypotheses.tokens.flip(1), -hypotheses.scores.flip(1))

    plain = captioners["lstm"]
    captioner = Captioner(plain.encoder, plain.decoder, plain.vocabulary, rerank=worst_first)
    path = str(save_image(tmp_path / "a.png"))
    (html,) = render_answer({"lstm": captioner}, [path], "beam", 30, 1.0, ["lstm"], use_rerank)
    assert html.count("<li>") == ALTERNATIVES
    assert ("score by training images" in html) == use_rerank
    assert ("−" in html) != use_rerank  # log-probabilities are negative


@pytest.mark.parametrize(("resize", "crop"), [(None, "100%"), (256, "50.00cqmin")])
def test_attention_is_laid_over_what_the_encoder_sees(
    tmp_path, captioners, monkeypatch, resize, crop
):
    encoder = captioners["attention"].encoder  # which sees 128 x 128 pixels
    monkeypatch.setattr(encoder, "preprocess", replace(encoder.preprocess, resize=resize))
    html = render_image(str(save_image(tmp_path / "a.png")), captioners, "nats")
    assert f'data-crop="{crop}"' in html


def test_several_images_become_a_table_and_a_csv_of_their_captions(tmp_path, captioners):
    paths = [
        save_image(tmp_path / f"{at:02}, ü.png", colour=(at, 90, 200 - 9 * at))
        for at in range(CHUNK + 3)
    ]
    paths[2].write_text("a letter")
    first, last = render_table(list(map(str, paths)), captioners)
    assert "data:text/csv" not in first
    assert "02, ü.png cannot be read" in last
    del paths[2]
    captions = [captioner.captions(paths) for captioner in captioners.values()]
    expected = [list(row) for row in zip((path.name for path in paths), *captions, strict=True)]
    assert csv_rows(last) == [["image", "attention", "lstm"], *expected]


def test_the_column_of_a_single_captioner_is_called_caption(tmp_path, captioners):
    path = save_image(tmp_path / "one.png")
    [html] = render_table([str(path)], {"lstm": captioners["lstm"]})
    assert csv_rows(html) == [["image", "caption"], ["one.png", captioners["lstm"](path)]]


def test_without_a_readable_image_there_is_no_csv(tmp_path, captioners):
    [html] = render_table([str(tmp_path / "gone.png")], captioners)
    assert "gone.png cannot be read" in html
    assert "text/csv" not in html


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text("a letter"), ""),
        (lambda path: Image.new("1", (30000, 30000)).save(path, "PNG"), "900000000 pixels"),
        (lambda path: None, ""),
    ],
    ids=["text", "bomb", "missing"],
)
def test_a_file_that_is_no_image_is_named_without_its_folder(tmp_path, make, reason):
    path = tmp_path / "holiday.jpg"
    make(path)
    with pytest.raises(UserError, match=rf"^holiday\.jpg cannot be read as .*{reason}") as caught:
        open_image(str(path))
    assert str(tmp_path) not in str(caught.value)


def test_unreadable_samples_are_left_out_and_the_others_keep_their_number(tmp_path):
    paths = [save_image(tmp_path / f"{name}.png") for name in "abc"]
    paths[1].write_text("a letter")
    html = FRAGMENTS.samples(list(map(str, paths)), 9)
    assert re.findall(r'data-at="(\d)".*alt="(.*)"', html) == [("0", "a.png"), ("2", "c.png")]
