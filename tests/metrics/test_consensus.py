"""Utilities against the metrics that they are made of."""

import numpy as np
import pytest

from captioning.metrics.bleu import bleu_counts, bleu_from_counts
from captioning.metrics.cider import DocumentFrequencies, cider_d
from captioning.metrics.consensus import bleu_utility, cider_utility, rouge_utility
from captioning.metrics.rouge import rouge_l

CAPTIONS = [
    ["a dog runs", "a dog runs on the grass", "a cat sleeps", "a dog runs"],
    ["two men ride a horse", "a man rides", "two men ride", "snow on a hill"],
]
# No word of the captions: all n-grams weigh the same.
DOCUMENTS = DocumentFrequencies.of([["lorem ipsum"], ["dolor sit"]])


@pytest.mark.parametrize(
    ("utility", "metric"),
    [
        (bleu_utility, lambda *texts: bleu_from_counts(bleu_counts(*texts))[:, 3]),
        (rouge_utility, rouge_l),
        (cider_utility, lambda *texts: cider_d(*texts, DOCUMENTS)),
    ],
    ids=["bleu", "rouge", "cider"],
)
def test_a_utility_is_the_score_of_one_caption_with_another_as_reference(utility, metric):
    utilities = utility(CAPTIONS)
    assert utilities.shape == (2, 4, 4)
    np.testing.assert_allclose(utility(CAPTIONS[:1]), utilities[:1])
    for of_image, captions in zip(utilities, CAPTIONS, strict=True):
        for row, hypothesis in zip(of_image, captions, strict=True):
            expected = metric([hypothesis] * 4, [[reference] for reference in captions])
            assert row.tolist() == pytest.approx(expected)


def test_mean_cider_against_the_others_is_cider_with_all_of_them_as_references():
    (score,) = cider_d(CAPTIONS[0][:1], [CAPTIONS[0][1:]], DOCUMENTS)
    assert cider_utility(CAPTIONS)[0, 0, 1:].mean() == pytest.approx(score)
