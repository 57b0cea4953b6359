"""ROUGE-L by hand; that it equals coco-caption's on any captions is in test_captions.py."""

import pytest

from captioning.metrics.rouge import longest_common_subsequence, rouge_l


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [
        ("a dog runs", "a dog runs", 3),
        ("a dog runs", "a big dog", 2),
        ("dog a", "a dog", 1),
        ("a b a b", "b a b a", 3),
        ("a a a", "a", 1),
        ("", "a", 0),
    ],
)
def test_longest_common_subsequence(first, second, length):
    first, second = tuple(first.split()), tuple(second.split())
    assert longest_common_subsequence(first, second) == length
    assert longest_common_subsequence(second, first) == length


def test_caption_equal_to_a_reference_scores_one():
    assert rouge_l(["A dog runs."], [["a cat", "a dog runs"]]).corpus == pytest.approx(1)


def test_precision_and_recall_come_from_the_best_reference_each():
    # Precision 2/2 from the first reference, recall 1/1 from the second.
    assert rouge_l(["a dog"], [["a big dog runs", "dog"]]).corpus == pytest.approx(1)


def test_recall_weighs_more_than_precision():
    missing = rouge_l(["a dog"], [["a dog runs fast"]]).corpus
    extra = rouge_l(["a dog runs fast"], [["a dog"]]).corpus
    assert missing == pytest.approx(2.44 * 0.5 / (0.5 + 1.44))
    assert missing < extra


def test_corpus_is_the_mean_of_images():
    scores = rouge_l(["a dog", "x y"], [["a dog"], ["a cat"]])
    assert scores.per_image.tolist() == pytest.approx([1, 0])
    assert scores.corpus == pytest.approx(0.5)


def test_empty_hypothesis_scores_zero():
    assert rouge_l([""], [["a dog"]]).corpus == 0
