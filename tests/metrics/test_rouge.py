"""ROUGE-L by hand; that it equals coco-caption's on any captions is in test_compute.py."""

import pytest

from captioning.metrics.rouge import rouge_l


@pytest.mark.parametrize(
    ("hypothesis", "references", "expected"),
    [
        ("A dog runs.", ["a cat", "a dog runs"], 1),
        ("a dog", ["a big dog runs", "dog"], 1),  # precision 2/2 of the first, recall 1/1
        ("a dog", ["a dog runs fast"], 2.44 * 0.5 / (0.5 + 1.44)),
        ("a dog runs fast", ["a dog"], 2.44 * 0.5 / (1 + 1.44 * 0.5)),  # recall weighs more
        ("x y", ["a cat"], 0),
        ("", ["a dog"], 0),
    ],
)
def test_rouge_of_one_caption(hypothesis, references, expected):
    scores = rouge_l(["a dog", hypothesis], [["a dog"], references])
    assert scores.tolist() == pytest.approx([1, expected])
