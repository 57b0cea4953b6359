"""BLEU by hand; that it equals coco-caption's on any captions is in test_captions.py."""

import math

import numpy as np
import pytest

from captioning.metrics.bleu import bleu


def test_caption_equal_to_a_reference_scores_one():
    scores = bleu(["A dog runs fast."], [["a cat sleeps", "a dog runs fast"]])
    np.testing.assert_allclose(scores.corpus, 1, atol=1e-8)


def test_precision_counts_a_word_as_often_as_one_reference_has_it():
    scores = bleu(["the the the"], [["the cat the", "the dog"]])
    assert scores.corpus[0] == pytest.approx(2 / 3)


def test_orders_are_geometric_means():
    scores = bleu(["a dog runs home"], [["a dog walks home"]])
    assert scores.corpus[0] == pytest.approx(3 / 4)
    assert scores.corpus[1] == pytest.approx(math.sqrt(3 / 4 * 1 / 3))


def test_short_caption_is_penalised():
    scores = bleu(["a dog"], [["a dog runs fast"]])
    assert scores.corpus[0] == pytest.approx(math.exp(1 - 4 / 2))


@pytest.mark.parametrize("references", [["a dog", "a dog runs fast"], ["a dog runs fast", "a dog"]])
def test_shorter_of_two_equally_close_references_sets_the_length(references):
    assert bleu(["a dog runs"], [references]).corpus[0] == pytest.approx(1)


def test_corpus_adds_up_counts_instead_of_averaging_images():
    scores = bleu(["a dog", "one two three four"], [["a dog"], ["one two five six"]])
    np.testing.assert_allclose(scores.per_image[:, 0], [1, 1 / 2])
    assert scores.corpus[0] == pytest.approx(4 / 6)


def test_each_image_has_four_orders():
    assert bleu(["a dog", "a cat"], [["a dog"], ["a cat"]]).per_image.shape == (2, 4)


def test_empty_hypothesis_scores_zero():
    np.testing.assert_array_equal(bleu([""], [["a dog"]]).corpus, 0)
