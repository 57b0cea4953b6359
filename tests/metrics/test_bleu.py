"""BLEU by hand; that it equals coco-caption's on any captions is in test_compute.py."""

import math

import pytest

from captioning.metrics.bleu import bleu_counts, bleu_from_counts


@pytest.mark.parametrize(
    ("hypothesis", "references", "order", "expected"),
    [
        ("A dog runs fast.", ["a cat sleeps", "a dog runs fast"], 4, 1),
        ("the the the", ["the cat the", "the dog"], 1, 2 / 3),  # as often as one reference has it
        ("a dog runs home", ["a dog walks home"], 1, 3 / 4),
        ("a dog runs home", ["a dog walks home"], 2, math.sqrt(3 / 4 * 1 / 3)),
        ("a dog", ["a dog runs fast"], 1, math.exp(1 - 4 / 2)),  # the brevity penalty
        ("a dog runs", ["a dog", "a dog runs fast"], 1, 1),  # the shorter of two equally close
        ("a dog runs", ["a dog runs fast", "a dog"], 1, 1),
        ("", ["a dog"], 4, 0),
    ],
)
def test_bleu_of_one_caption(hypothesis, references, order, expected):
    bleu = bleu_from_counts(bleu_counts([hypothesis], [references]))
    assert bleu[0, order - 1] == pytest.approx(expected)
