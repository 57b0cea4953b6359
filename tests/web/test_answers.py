"""What the page says, without a browser."""

import re
from functools import partial
from html import escape

import pytest
import torch
from PIL import Image

from captioning.features.images import Preprocess
from captioning.search.beam import beam_search
from captioning.web import answers
from captioning.web.caption_table import table


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
    for html in (answers.look(str(path), captioners, ""), *table([str(path)], captioners)):
        assert "onerror" in html
        assert "<img src=x" not in html


def test_by_neighbours_each_model_searches_as_it_was_told(tmp_path, captioners, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    one = captioners["lstm"]
    monkeypatch.setattr(one, "search", partial(beam_search, width=30))
    (html,) = answers.answer({"lstm": one}, [str(path)], "neighbours", 2, 1.0, ["lstm"])
    best = [text for text, _ in one.alternatives(path)]
    assert len(best) > answers.BEST == html.count("<li>")
    assert escape(best[9]) in html
    assert "score by training pictures" in html


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
