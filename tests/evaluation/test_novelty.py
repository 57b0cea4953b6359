import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.evaluation.novelty import copied, nearest

TRAINING = ["A dog runs .", "a cat sits", "a dog sits on a red mat", "two birds", "A dog runs ."]
sentences = st.lists(st.sampled_from(["a", "dog", "cat", "runs", "sits", "red", "mat"]), max_size=6)


def test_the_same_sentence_is_closest_and_comes_once():
    (found,) = nearest(["a dog runs"], TRAINING)
    assert found[0] == ("A dog runs .", pytest.approx(1.0))
    assert [text for text, _ in found].count("A dog runs .") == 1


def test_a_rare_word_weighs_more_than_a_frequent_one():
    training = ["a dog", "the dog sits", "a dog runs", "one bird", "a cat"]
    (found,) = nearest(["one dog"], training)
    assert found[0][0] == "one bird"
    assert len(found) == 3


def test_a_caption_of_unknown_words_has_no_neighbour():
    assert nearest(["zebras", ""], TRAINING) == [[], []]


@given(sentences, st.lists(sentences.map(" ".join), min_size=1, max_size=8))
def test_neighbours_are_training_captions_from_the_closest_on(words, training):
    (found,) = nearest([" ".join(words)], training)
    closeness = [close for _, close in found]
    assert closeness == sorted(closeness, reverse=True)
    assert all(0 < close <= 1 + 1e-9 for close in closeness)
    assert {text for text, _ in found} <= set(training)


def test_copied_counts_captions_that_are_in_training_word_for_word():
    assert copied(["A dog runs", "a dog runs .", "runs a dog", "a cat"], TRAINING) == 0.5
