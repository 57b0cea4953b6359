import numpy as np
import pytest

from captioning.evaluation.breakdowns import (
    by_length,
    by_references,
    caption_lengths,
    coverage,
    turned,
)
from captioning.metrics.compute import caption_scores

REFERENCES = [["a dog runs", "the dog runs fast"], ["a red car", "the car", "a car drives"]]
CAPTIONS = ["a dog runs fast", "the red car"]


def test_length_is_in_words():
    assert caption_lengths(["A dog's ball .", ""]).tolist() == [4, 0]


def test_scores_are_grouped_by_length():
    groups = by_length(np.array([3, 4, 3, 4]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert groups.lengths.tolist() == [3, 4]
    assert groups.means.tolist() == [0.5, 1.0]
    assert groups.errors.tolist() == [0.5, 0.0]


def test_a_rare_length_is_left_out():
    assert by_length(np.array([3, 3, 9]), np.ones(3)).lengths.tolist() == [3]


def test_scores_by_references_end_with_those_that_every_image_has():
    curve = by_references(CAPTIONS, REFERENCES)["bleu4"]
    expected = caption_scores(CAPTIONS, [some[:2] for some in REFERENCES])["bleu4"]
    assert len(curve) == 2
    assert curve[1] == pytest.approx(expected)


def test_words_never_said_are_named_by_frequency():
    found = coverage(["a dog"], REFERENCES, {"a", "dog", "car"})
    assert found.never[0] == ("car", 3)
    assert {word for word, _ in found.never} == {"car", "runs", "the", "red", "drives", "fast"}


def test_coverage_counts_each_word_as_often_as_it_is_written():
    found = coverage(["a dog"], REFERENCES, {"a", "dog", "car"})
    assert found.words == 2
    assert found.said == pytest.approx(5 / 15)
    assert found.known == pytest.approx(8 / 15)


def test_bands_are_of_words_as_frequent():
    bands = coverage(["a dog fast"], REFERENCES, set()).bands
    assert bands == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 5)}


def test_references_turn_round():
    assert turned(["a", "b", "c"], 4) == ["b", "c", "a"]
