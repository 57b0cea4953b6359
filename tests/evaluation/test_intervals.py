"""The bootstrap against what is known: the normal approximation, and cases without noise."""

import math
from functools import cache

import numpy as np
import pytest

from captioning.evaluation.intervals import interval, p_value, resample, resampled_scores
from captioning.metrics.compute import caption_scores, compute_statistics, text_inputs
from captioning.metrics.score_table import TABLE

HYPOTHESES = ["a dog runs", "a cat", "two men play ball on grass"]
REFERENCES = [["a dog runs fast", "the dog"], ["a cat sleeps"], ["two men on grass", "men play"]]


def normal(mean, seed=1):
    return np.random.default_rng(seed).normal(mean, 1.0, 400)


@cache
def draws():
    return resample(400, samples=10_000)


def means(values):
    return resampled_scores(draws(), {TABLE["cider"].function: values})["cider"]


def test_a_resample_draws_as_many_images_as_there_are_by_its_seed():
    first, again, other = (resample(9, 20, seed=seed) for seed in (3, 3, 4))
    assert first.shape == (20, 9)
    assert (first.sum(1) == 9).all()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_interval_is_the_normal_one_where_there_are_many_images():
    values = normal(mean=0.2)
    error = values.std() / 20
    expected = values.mean() - 1.96 * error, values.mean() + 1.96 * error
    np.testing.assert_allclose(interval(means(values)), expected, atol=0.05 * error)


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.1, 0.2])
def test_a_p_value_is_the_normal_one_where_there_are_many_images(mean):
    differences = normal(mean)
    z = differences.mean() / (differences.std() / 20)
    two_sided = math.erfc(abs(z) / math.sqrt(2))
    assert p_value(means(differences)) == pytest.approx(two_sided, rel=0.1, abs=0.005)


def test_noise_that_two_systems_share_does_not_hide_a_difference():
    baseline = normal(mean=0.0)
    better = baseline + 0.05 + 0.01 * normal(mean=0.0, seed=2)
    assert p_value(means(better) - means(baseline)) < 0.001


def test_p_values_without_noise():
    assert p_value(np.zeros(100)) == 1.0
    assert p_value(np.full(100, 1e-9)) == 1.0  # two BLEU-4 of nothing
    assert p_value(np.ones(99)) == 0.02  # few resamples cannot tell more


@pytest.mark.parametrize("drawn", [[0, 1, 2], [0, 0, 2]])
def test_scores_are_those_of_the_images_drawn(drawn):
    statistics = compute_statistics(text_inputs(HYPOTHESES, REFERENCES))
    counts = np.bincount(drawn, minlength=3)[None].astype(float)
    sampled = resampled_scores(counts, statistics)
    expected = caption_scores([HYPOTHESES[n] for n in drawn], [REFERENCES[n] for n in drawn])
    # CIDEr-D keeps the document frequencies of all images.
    keys = [key for key in sampled if key != "cider" or drawn == [0, 1, 2]]
    assert [sampled[key][0] for key in keys] == pytest.approx([expected[key] for key in keys])
