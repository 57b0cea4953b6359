"""Figures say what they are given; the notebooks' test draws them all."""

import pytest
import torch
from PIL import Image

from captioning.evaluation.breakdowns import coverage
from captioning.evaluation.figures import (
    attention_figure,
    bands_figure,
    captions_figure,
    lengths_figure,
    scores_figure,
    vocabulary_figure,
    vocabulary_growth,
)
from captioning.training.validation import Generated


def drawn(figure):
    figure.canvas.draw()
    return figure.axes


def test_captions_are_under_their_pictures_with_scores_and_a_reference(records):
    rows = [Generated(record, "a red thing", {"cider": 0.5}) for record in records[:5]]
    axes = drawn(captions_figure(rows))
    assert len(axes) == 5
    assert axes[0].get_xlabel() == "“a red thing”\nCIDEr-D 0.50\npeople: A red square ."


def test_lengths_are_shares_of_each_split(records):
    (axis,) = drawn(lengths_figure(records))
    assert [line.get_label() for line in axis.lines] == ["train, 12 captions", "val, 12 captions"]
    assert axis.lines[0].get_ydata()[3] == pytest.approx(100 * 8 / 12)
    assert axis.lines[0].get_ydata().sum() == pytest.approx(100)


def test_words_grow_with_the_captions():
    assert vocabulary_growth(["a dog", "a dog runs", "", "two dogs"]) == [2, 3, 3, 5]


def test_the_vocabulary_shrinks_as_min_count_grows(records):
    growth, size, known = drawn(vocabulary_figure(records, min_count=3))
    assert growth.lines[0].get_ydata()[-1] == size.lines[0].get_ydata()[0] == 10
    assert list(size.lines[0].get_ydata()[:5]) == [10, 10, 10, 6, 2]
    assert known.lines[0].get_ydata()[0] == pytest.approx(100)
    assert known.lines[1].get_xdata() == [3, 3]


def test_attention_is_bright_where_the_model_looks():
    weights = torch.zeros(2, 2)
    weights[0, 1] = 0.8
    picture = Image.new("RGB", (40, 40), "white")
    axes = drawn(attention_figure(picture, [("dog", weights), ("<eos>", weights / 2)]))
    assert axes[1].get_title() == "dog  80 %"
    light = axes[1].images[0].get_array()
    assert light[5, 35].mean() > 0.95 and light[35, 5].mean() < 0.3
    assert axes[2].images[0].get_array()[5, 35].mean() < 0.7


def test_scores_and_bands_are_drawn(records):
    rows = [Generated(one, "a", {"cider": 0.1, "bert_similarity": 0.2}) for one in records]
    (axis,) = drawn(scores_figure(rows, "cider", "bert_similarity"))
    assert axis.get_xlabel() == "CIDEr-D"
    references = [["a b"] * 6, ["a c c"]]
    (axis,) = drawn(bands_figure(coverage(["a b", "a"], references, {"a"})))
    assert [text.get_text() for text in axis.get_xticklabels()] == ["2–4", "5 or more"]
