"""Minimum Bayes risk, by hand."""

from functools import partial

import numpy as np
import pytest
import torch
from tiny import assert_equal_alone, decoder, features

from captioning.data.vocabulary import EOS, PAD
from captioning.metrics.consensus import bleu_utility, cider_utility, rouge_utility
from captioning.search.beam import Hypotheses
from captioning.search.minimum_bayes_risk import consensus_search, minimum_bayes_risk
from captioning.search.sample import sample

CAT, DOG, RUNS, SLEEPS = range(4, 8)


def rerank(*images, utility=None):
    """Return the captions, as words, and the scores of minimum Bayes risk."""
    rows = [[[*words, EOS] + [PAD] * (3 - len(words)) for words in image] for image in images]
    scores = -torch.arange(float(len(rows[0]))).repeat(len(rows), 1)
    hypotheses = Hypotheses(torch.tensor(rows), scores)
    reranked = minimum_bayes_risk(hypotheses, utility or jaccard_index)
    words = [[row[: row.index(EOS)] for row in image] for image in reranked.tokens.tolist()]
    return words, reranked.scores.tolist()


def jaccard_index(captions):
    sets = [[set(caption.split()) for caption in of_image] for of_image in captions]
    return np.array([[[len(a & b) / len(a | b) for b in image] for a in image] for image in sets])


@pytest.mark.parametrize(
    ("given", "order", "scores"),
    [
        # "dog" agrees with most
        ([[CAT], [DOG, RUNS], [DOG, SLEEPS], [DOG]], [3, 1, 2, 0], [1 / 3, 5 / 18, 5 / 18, 0.0]),
        ([[DOG], [CAT, SLEEPS], [CAT, SLEEPS]], [1, 2, 0], [0.5, 0.5, 0.0]),  # one is drawn twice
        ([[DOG], [CAT], [RUNS]], [0, 1, 2], [0.0, 0.0, 0.0]),  # equals keep their order
        ([[DOG]], [0], [0.0]),
    ],
)
def test_scores_are_mean_utilities(given, order, scores):
    captions, reranked = rerank(given, given[::-1])
    assert captions[0] == [given[at] for at in order]
    assert reranked == [pytest.approx(scores)] * 2


def test_the_utility_of_a_given_b_is_not_that_of_b_given_a():
    utilities = np.array([[[9.0, 0.0], [1.0, 9.0]]])
    expected = [[[CAT], [DOG]]], [[1.0, 0.0]]
    assert rerank([[DOG], [CAT]], utility=lambda _: utilities) == expected


@pytest.mark.parametrize("utility", [cider_utility, bleu_utility, rouge_utility])
def test_an_image_has_its_consensus_whatever_the_batch(utility):
    options = {"utility": utility, "samples": 6, "max_length": 5}
    assert_equal_alone(partial(consensus_search, decoder(), **options), features(5))


def test_consensus_search_orders_samples_by_their_agreement():
    ordered = consensus_search(decoder(), features(), jaccard_index, samples=6, max_length=3)
    samples = sample(decoder(), features(), 6, top_p=0.9, max_length=3, share_draws=True)
    assert torch.equal(ordered.tokens, minimum_bayes_risk(samples, jaccard_index).tokens)
