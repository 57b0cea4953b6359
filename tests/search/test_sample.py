"""Sampling: frequencies against the model's own probabilities."""

import math
from collections import Counter
from functools import partial

import pytest
import torch
from tiny import (
    assert_equal_alone,
    decoder,
    every_caption,
    features,
    log_probability,
    read_caption,
)

from captioning.data.vocabulary import BOS, UNK
from captioning.search.beam import greedy_search
from captioning.search.sample import draw, nucleus, sample

MANY = 20_000


def assert_drawn_from(counts, probs):
    """Check that Pearson's chi-square is within five standard deviations above its mean."""
    expected = {key: p * sum(counts.values()) for key, p in probs.items() if p > 0}
    assert set(counts) <= set(expected)
    statistic = sum((counts[key] - count) ** 2 / count for key, count in expected.items())
    freedom = len(expected) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.7, 1.0])
def test_words_are_drawn_as_often_as_they_are_probable(temperature, top_p):
    model, row = decoder(), features(1)
    words = sample(model, row, MANY, temperature, top_p, max_length=1).tokens[0, :, 0]
    logits = model.step(torch.tensor([BOS]), model.begin(row))[0][:, UNK + 1 :]
    probs = nucleus((logits / temperature).softmax(-1), top_p)[0]
    expected = dict(enumerate((probs / probs.sum()).tolist(), UNK + 1))
    assert_drawn_from(Counter(words.tolist()), expected)


def test_captions_are_drawn_as_often_as_they_are_probable():
    model, row = decoder(), features(1)
    tokens = sample(model, row, MANY, max_length=3).tokens[0]
    # After three words <eos> is certain, whatever the model says.
    free = {caption: caption[:3] if len(caption) > 3 else caption for caption in every_caption(3)}
    expected = {s: math.exp(log_probability(model, row[0], words)) for s, words in free.items()}
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
    assert_drawn_from(Counter(map(read_caption, tokens)), expected)


def test_scores_are_the_models_log_probabilities_whatever_the_temperature():
    model, rows = decoder(), features()
    hypotheses = sample(model, rows, 8, temperature=2.0, top_p=0.8, max_length=4)
    for row, tokens, scores in zip(rows, *hypotheses, strict=True):
        expected = [log_probability(model, row, read_caption(caption)) for caption in tokens]
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)
        assert (scores.diff() <= 0).all()


@pytest.mark.parametrize("options", [{"temperature": 1e-4}, {"top_p": 1e-6}])
def test_the_limits_are_greedy(options):
    model, rows = decoder(), features(16)
    tokens = sample(model, rows, 3, **options).tokens
    assert torch.equal(tokens, greedy_search(model, rows).tokens.expand_as(tokens))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_the_nucleus_is_the_fewest_words_that_reach_top_p(top_p):
    torch.manual_seed(0)
    probs = (2 * torch.randn(50, 30)).softmax(-1)
    for row, in_nucleus in zip(probs, nucleus(probs, top_p), strict=True):
        inside = row[in_nucleus > 0]
        assert torch.equal(in_nucleus[in_nucleus > 0], inside)
        assert inside.min() >= row[in_nucleus == 0].max()
        assert inside.sum() >= top_p - 1e-5
        assert inside.sum() - inside.min() < top_p + 1e-5


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24, 1.0])  # 1 by rounding
def test_no_random_number_draws_a_forbidden_word(uniform):
    torch.manual_seed(0)
    logits = torch.randn(2000, 50).masked_fill(torch.rand(2000, 50) < 0.9, -torch.inf)
    log_probs = logits[~logits.isneginf().all(1)].log_softmax(-1)
    word = draw(log_probs, torch.full((len(log_probs),), uniform), 1.0, 1.0)
    assert log_probs.gather(1, word[:, None]).isfinite().all()


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_every_sample_has_words_and_ends_once(seed, n):
    options = {"max_length": 6, "min_length": 2, "no_repeat_ngram": n}
    for tokens in sample(decoder(seed), features(), 20, 3.0, seed=seed, **options).tokens:
        for words in (read_caption(caption)[:-1] for caption in tokens):
            assert 2 <= len(words) <= 6
            ngrams = list(zip(*(words[at:] for at in range(n)), strict=False))
            assert len(set(ngrams)) == len(ngrams)


def test_a_seed_draws_the_same_and_leaves_the_global_generator_alone():
    model, rows = decoder(), features()
    state = torch.get_rng_state()
    first, again, other = (sample(model, rows, 8, seed=seed).tokens for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_an_image_draws_what_it_draws_alone():
    options = {"samples": 8, "max_length": 6, "share_draws": True}
    assert_equal_alone(partial(sample, decoder(), **options), features(8))
