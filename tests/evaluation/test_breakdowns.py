import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.evaluation.breakdowns import (
    caption_lengths,
    copied_share,
    nearest_captions,
    rotate,
    scores_by_length,
    scores_by_reference_count,
    word_coverage,
)
from captioning.metrics.compute import caption_scores

REFERENCES = [["a dog runs", "the dog runs fast"], ["a red car", "the car", "a car drives"]]
CAPTIONS = ["a dog runs fast", "the red car"]
TRAINING = ["A dog runs .", "a cat sits", "a dog sits on a red mat", "two birds", "A dog runs ."]
sentences = st.lists(st.sampled_from(["a", "dog", "cat", "runs", "sits", "red", "mat"]), max_size=6)


def test_length_is_in_words():
    assert caption_lengths(["A dog's ball .", ""]).tolist() == [4, 0]


def test_scores_are_averaged_by_length_without_rare_lengths():
    lengths, means, errors = scores_by_length(
        np.array([3, 4, 3, 4, 9]), np.array([0.0, 1, 1, 1, 1])
    )
    assert (lengths.tolist(), means.tolist(), errors.tolist()) == ([3, 4], [0.5, 1.0], [0.5, 0.0])


def test_scores_by_reference_count_end_with_the_number_that_every_image_has():
    curve = scores_by_reference_count(CAPTIONS, REFERENCES)["bleu4"]
    expected = caption_scores(CAPTIONS, [texts[:2] for texts in REFERENCES])["bleu4"]
    assert len(curve) == 2
    assert curve[1] == pytest.approx(expected)


def test_coverage_counts_each_word_as_often_as_it_is_written():
    coverage = word_coverage(["a dog"], REFERENCES, {"a", "dog", "car"})
    assert coverage.unused[0] == ("car", 3)
    assert {word for word, _ in coverage.unused[1:]} == {"runs", "the", "red", "drives", "fast"}
    assert coverage.words == 2
    assert coverage.used == pytest.approx(5 / 15)
    assert coverage.known == pytest.approx(8 / 15)


def test_bands_hold_words_of_like_frequency():
    bands = word_coverage(["a dog fast"], REFERENCES, set()).bands
    assert bands == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 5)}


def test_references_are_rotated():
    assert rotate(["a", "b", "c"], 4) == ["b", "c", "a"]


def test_the_same_sentence_is_nearest_and_comes_once_and_unknown_words_have_no_neighbour():
    nearest, *others = nearest_captions(["a dog runs", "zebras", ""], TRAINING)
    assert others == [[], []]
    assert nearest[0] == ("A dog runs .", pytest.approx(1.0))
    assert [text for text, _ in nearest].count("A dog runs .") == 1


def test_a_rare_word_weighs_more_than_a_frequent_one():
    training = ["a dog", "the dog sits", "a dog runs", "one bird", "a cat"]
    (nearest,) = nearest_captions(["one dog"], training)
    assert nearest[0][0] == "one bird"
    assert len(nearest) == 3


@given(sentences, st.lists(sentences.map(" ".join), min_size=1, max_size=8))
def test_neighbours_are_training_captions_sorted_by_cosine(words, training):
    (nearest,) = nearest_captions([" ".join(words)], training)
    cosines = [cosine for _, cosine in nearest]
    assert cosines == sorted(cosines, reverse=True)
    assert all(0 < cosine <= 1 + 1e-9 for cosine in cosines)
    assert {text for text, _ in nearest} <= set(training)


def test_copied_captions_are_training_captions_word_for_word():
    assert copied_share(["A dog runs", "a dog runs .", "runs a dog", "a cat"], TRAINING) == 0.5
