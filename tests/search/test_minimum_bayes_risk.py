"""Minimum Bayes risk, by hand."""

import numpy as np
import pytest
import torch
from tiny import decoder, features

from captioning.data.vocabulary import EOS, PAD, SPECIALS, Vocabulary
from captioning.metrics.consensus import bleu_utility, cider_utility, rouge_utility
from captioning.search.beam import Hypotheses
from captioning.search.minimum_bayes_risk import consensus_search, minimum_bayes_risk
from captioning.search.sample import sample

VOCABULARY = Vocabulary([*SPECIALS, "cat", "dog", "runs", "sleeps"])
CAT, DOG, RUNS, SLEEPS = range(4, 8)


def hypotheses(*pictures):
    rows = [[[*words, EOS] + [PAD] * (3 - len(words)) for words in many] for many in pictures]
    scores = -torch.arange(float(len(rows[0]))).repeat(len(rows), 1)
    return Hypotheses(torch.tensor(rows), scores)


def shared_words(captions):
    """Jaccard's index."""
    sets = [[set(caption.split()) for caption in many] for many in captions]
    return np.array([[[len(a & b) / len(a | b) for b in many] for a in many] for many in sets])


def test_the_medoid_comes_first():
    found = minimum_bayes_risk(
        hypotheses(
            [[CAT], [DOG, RUNS], [DOG, SLEEPS], [DOG]],  # "dog" agrees with most
            [[CAT, SLEEPS], [DOG], [CAT], [CAT, RUNS]],
        ),
        shared_words,
        VOCABULARY,
    )
    assert found.tokens[:, 0].tolist() == [[DOG, EOS, PAD, PAD], [CAT, EOS, PAD, PAD]]
    torch.testing.assert_close(found.scores[0, 0], torch.tensor((0.5 + 0.5 + 0) / 3))
    assert (found.scores.diff() <= 0).all()


def test_a_caption_drawn_twice_counts_twice():
    found = minimum_bayes_risk(
        hypotheses([[DOG], [CAT, SLEEPS], [CAT, SLEEPS]]), shared_words, VOCABULARY
    )
    assert found.tokens[0, 0].tolist() == [CAT, SLEEPS, EOS, PAD]
    assert found.scores[0].tolist() == [0.5, 0.5, 0.0]


def test_equals_keep_their_order():
    given = hypotheses([[DOG], [CAT], [RUNS]])
    assert torch.equal(minimum_bayes_risk(given, shared_words, VOCABULARY).tokens, given.tokens)


def test_a_worth_of_a_given_b_is_not_that_of_b_given_a():
    found = minimum_bayes_risk(
        hypotheses([[DOG], [CAT]]), lambda _: np.array([[[9.0, 0.0], [1.0, 9.0]]]), VOCABULARY
    )
    assert found.tokens[0, 0].tolist() == [CAT, EOS, PAD, PAD]
    assert found.scores[0].tolist() == [1.0, 0.0]


def test_one_candidate_is_chosen():
    found = minimum_bayes_risk(hypotheses([[DOG]]), shared_words, VOCABULARY)
    assert found.tokens.tolist() == [[[DOG, EOS, PAD, PAD]]]
    assert found.scores.tolist() == [[0.0]]


def test_without_a_vocabulary_words_are_compared_by_their_ids():
    given = hypotheses([[CAT], [DOG, RUNS], [DOG, SLEEPS], [DOG]])
    by_ids, by_words = (
        minimum_bayes_risk(given, shared_words, vocabulary) for vocabulary in (None, VOCABULARY)
    )
    assert torch.equal(by_ids.tokens, by_words.tokens)
    assert torch.equal(by_ids.scores, by_words.scores)


@pytest.mark.parametrize("utility", [cider_utility, bleu_utility, rouge_utility])
def test_an_image_has_its_consensus_whatever_the_batch(utility):
    model, rows = decoder(), features(5)
    options = {"utility": utility, "samples": 6, "max_length": 5}
    together = consensus_search(model, rows, **options)
    for at, row in enumerate(rows):
        alone = consensus_search(model, row[None], **options)
        assert torch.equal(together.tokens[at, :, : alone.tokens.shape[-1]], alone.tokens[0])
        assert torch.equal(together.scores[at], alone.scores[0])


def test_consensus_search_orders_samples_by_their_agreement():
    found = consensus_search(decoder(), features(), shared_words, samples=6, max_length=3)
    drawn = sample(decoder(), features(), 6, top_p=0.9, max_length=3, share_draws=True)
    assert torch.equal(found.tokens, minimum_bayes_risk(drawn, shared_words).tokens)
