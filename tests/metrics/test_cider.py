"""CIDEr-D by hand; that it equals coco-caption's on any captions is in test_compute.py."""

import math

import pytest

from captioning import UserError
from captioning.metrics.cider import DocumentFrequencies, cider_d

TWO = [["a dog runs very fast"], ["two cats sleep all day"]]


@pytest.mark.parametrize(
    ("hypotheses", "references", "expected"),
    [
        (["a dog runs very fast", "two cats sleep all day"], TWO, [10, 10]),
        (["a dog runs very fast", "x"], TWO, [10, 0]),
        (["", ""], TWO, [0, 0]),
        (["a", "a"], [["a dog"], ["a cat"]], [0, 0]),  # a word of every image weighs nothing
        # Cosine sqrt(1/2) in one of four orders; coco's length, in bigrams, differs by one.
        (
            ["dog", "x"],
            [["dog runs"], ["two cats"]],
            [10 / 4 * math.sqrt(1 / 2) * math.exp(-1 / 72), 0],
        ),
    ],
)
def test_cider_of_two_captions(hypotheses, references, expected):
    assert cider_d(hypotheses, references).tolist() == pytest.approx(expected)


def test_one_image_needs_document_frequencies():
    with pytest.raises(UserError, match="two images or more"):
        cider_d(["a dog"], [["a dog"]])
    documents = DocumentFrequencies.of([*TWO, ["a man and a dog"]])
    assert documents.images == 3
    assert documents.counts[("dog",)] == 2
    assert cider_d(["a dog runs"], TWO[:1], documents)[0] > 0
