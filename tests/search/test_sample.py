"""Sampling: frequencies against the model's own probabilities."""

import math
from collections import Counter

import pytest
import torch
from tiny import decoder, every_sentence, features, log_probability, sentence

from captioning import UserError
from captioning.data.vocabulary import BOS, PAD, UNK
from captioning.search.beam import greedy_search
from captioning.search.sample import draw, nucleus, sample

MANY = 20_000


def assert_drawn_from(counts, probability):
    """Pearson's chi-square stays below its mean by five standard deviations at the most."""
    total = sum(counts.values())
    assert set(counts) <= {key for key, p in probability.items() if p > 0}
    kept = {key: p * total for key, p in probability.items() if p > 0}
    statistic = sum((counts[key] - expected) ** 2 / expected for key, expected in kept.items())
    freedom = len(kept) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.7, 1.0])
def test_words_are_drawn_as_often_as_they_are_probable(temperature, top_p):
    model, row = decoder(), features(1)
    words = sample(model, row, MANY, temperature, top_p, max_length=1).tokens[0, :, 0]
    logits = model.step(torch.tensor([BOS]), model.begin(row))[0][:, UNK + 1 :]
    left = nucleus((logits / temperature).softmax(-1), top_p)[0]
    expected = dict(enumerate((left / left.sum()).tolist(), UNK + 1))
    assert_drawn_from(Counter(words.tolist()), expected)


def test_sentences_are_drawn_as_often_as_they_are_probable():
    model, row = decoder(), features(1)
    found = sample(model, row, MANY, max_length=3)
    # After three words <eos> is certain, whatever the model says.
    chosen = {s: s if len(s) <= 3 else s[:-1] for s in every_sentence(3)}
    expected = {s: math.exp(log_probability(model, row[0], words)) for s, words in chosen.items()}
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
    assert_drawn_from(Counter(map(sentence, found.tokens[0])), expected)


def test_scores_are_the_models_log_probabilities_whatever_the_temperature():
    model, rows = decoder(), features()
    found = sample(model, rows, 8, temperature=2.0, top_p=0.8, max_length=4)
    for row, tokens, scores in zip(rows, found.tokens, found.scores, strict=True):
        expected = [log_probability(model, row, sentence(one)) for one in tokens]
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)
        assert (scores.diff() <= 0).all()


@pytest.mark.parametrize("options", [{"temperature": 1e-4}, {"top_p": 1e-6}])
def test_the_limits_are_greedy(options):
    model, rows = decoder(), features(16)
    greedy = greedy_search(model, rows).tokens
    drawn = sample(model, rows, 3, **options).tokens
    assert torch.equal(drawn, greedy.expand_as(drawn))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_the_nucleus_is_the_fewest_words_that_reach_top_p(top_p):
    torch.manual_seed(0)
    probability = (2 * torch.randn(50, 30)).softmax(-1)
    for row, kept in zip(probability, nucleus(probability, top_p), strict=True):
        inside = kept > 0
        assert torch.equal(kept[inside], row[inside])
        assert row[inside].min() >= row.where(~inside, 0).max()
        assert row[inside].sum() >= top_p - 1e-5
        assert row[inside].sum() - row[inside].min() < top_p + 1e-5


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24, 1.0])  # 1 by rounding
def test_no_random_number_draws_what_may_not_come(uniform):
    torch.manual_seed(0)
    following = torch.randn(2000, 50).masked_fill(torch.rand(2000, 50) < 0.9, -torch.inf)
    following = following[~following.isneginf().all(1)].log_softmax(-1)
    word = draw(following, torch.full((len(following),), uniform), 1.0, 1.0)
    assert following.gather(1, word[:, None]).isfinite().all()


@pytest.mark.parametrize("no_repeat_ngram", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_every_sample_has_words_and_ends_once(seed, no_repeat_ngram):
    options = {"max_length": 6, "min_length": 2, "no_repeat_ngram": no_repeat_ngram}
    found = sample(decoder(seed), features(), 20, 3.0, seed=seed, **options)
    for tokens in found.tokens.flatten(0, 1):
        words = sentence(tokens)[:-1]
        assert 2 <= len(words) <= 6
        ngrams = list(zip(*(words[at:] for at in range(no_repeat_ngram)), strict=False))
        assert len(set(ngrams)) == len(ngrams)


def test_a_seed_draws_the_same_and_another_seed_others():
    model, rows = decoder(), features()
    first, again, other = (sample(model, rows, 8, seed=seed).tokens for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_sampling_leaves_the_global_generator_alone():
    model, rows = decoder(), features()
    before = torch.get_rng_state()
    sample(model, rows)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_draws_what_it_draws_alone():
    model, rows = decoder(), features(8)
    together = sample(model, rows, 8, max_length=6, share_draws=True).tokens
    for at, row in enumerate(rows):
        alone = sample(model, row[None], 8, max_length=6).tokens[0]
        time = alone.shape[-1]
        assert torch.equal(together[at, :, :time], alone)
        assert (together[at, :, time:] == PAD).all()


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_what_is_out_of_range_is_an_error(options):
    (name, value), *_ = options.items()
    with pytest.raises(UserError, match=f"{name}={value} must be above 0"):
        sample(decoder(), features(), **options)
