"""CIDEr-D by hand; that it equals coco-caption's on any captions is in test_captions.py."""

import math

import pytest

from captioning import UserError
from captioning.metrics.cider import Documents, cider_d

TWO = [["a dog runs very fast"], ["two cats sleep all day"]]


def test_captions_equal_to_their_references_score_ten():
    scores = cider_d([of_image[0] for of_image in TWO], TWO)
    assert scores.corpus == pytest.approx(10)


def test_word_of_every_image_weighs_nothing():
    scores = cider_d(["a", "a"], [["a dog"], ["a cat"]])
    assert scores.corpus == 0


def test_one_matching_word_of_two():
    # Cosine sqrt(1/2) in one of four orders; coco's length, in bigrams, differs by one.
    scores = cider_d(["dog", "x"], [["dog runs"], ["two cats"]])
    expected = 10 / 4 * math.sqrt(1 / 2) * math.exp(-1 / 72)
    assert scores.per_image.tolist() == pytest.approx([expected, 0])


def test_repeated_word_gains_nothing():
    references = [["dog runs"], ["two cats"]]
    once = cider_d(["dog x y", "x"], references).per_image[0]
    twice = cider_d(["dog dog y", "x"], references).per_image[0]
    assert twice == pytest.approx(once * math.sqrt(3 / 5))  # unclipped, twice that


def test_corpus_is_the_mean_of_images():
    scores = cider_d(["a dog runs very fast", "x"], TWO)
    assert scores.per_image.tolist() == pytest.approx([10, 0])
    assert scores.corpus == pytest.approx(5)


def test_empty_hypothesis_scores_zero():
    assert cider_d(["", ""], TWO).corpus == 0


def test_one_image_alone_is_an_error():
    with pytest.raises(UserError, match="two images or more"):
        cider_d(["a dog"], [["a dog"]])


def test_documents_of_the_references_change_nothing():
    captions = ["a dog runs", "a cat sleeps"]
    given = cider_d(captions, TWO, Documents.of(TWO))
    assert given.per_image.tolist() == cider_d(captions, TWO).per_image.tolist()


def test_with_documents_one_image_has_a_score():
    documents = Documents.of([*TWO, ["a man and a dog"]])
    assert documents.images == 3
    assert documents.frequency[("dog",)] == 2
    assert cider_d(["a dog runs"], TWO[:1], documents).corpus > 0
