"""The bootstrap against what is known: the normal approximation, and cases without noise."""

import math
from functools import cache

import numpy as np
import pytest

from captioning.evaluation.intervals import interval, p_value, resample, resampled_scores
from captioning.metrics.compute import caption_scores
from captioning.metrics.score_table import TABLE

HYPOTHESES = ["a dog runs", "a cat", "two men play ball on grass"]
REFERENCES = [["a dog runs fast", "the dog"], ["a cat sleeps"], ["two men on grass", "men play"]]


def normal(images, mean, seed=1):
    return np.random.default_rng(seed).normal(mean, 1.0, images)


@cache
def draws(images):
    return resample(images, samples=10_000)


def means(values):
    return resampled_scores(draws(len(values)), {TABLE["cider"].function: values})["cider"]


def two_sided(z):
    return math.erfc(abs(z) / math.sqrt(2))


def test_a_resample_draws_as_many_images_as_there_are():
    draws = resample(7, 50)
    assert draws.shape == (50, 7)
    assert (draws.sum(1) == 7).all()


def test_the_same_seed_draws_the_same():
    np.testing.assert_array_equal(resample(9, 20, seed=3), resample(9, 20, seed=3))
    assert (resample(9, 20, seed=3) != resample(9, 20, seed=4)).any()


def test_an_interval_is_the_normal_one_where_there_are_many_images():
    values = normal(400, mean=0.2)
    error = values.std() / 20
    expected = values.mean() - 1.96 * error, values.mean() + 1.96 * error
    np.testing.assert_allclose(interval(means(values)), expected, atol=0.05 * error)


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.1, 0.2])
def test_a_p_value_is_the_normal_one_where_there_are_many_images(mean):
    differences = normal(400, mean)
    z = differences.mean() / (differences.std() / 20)
    assert p_value(means(differences)) == pytest.approx(two_sided(z), rel=0.1, abs=0.005)


def test_noise_that_two_systems_share_does_not_hide_a_difference():
    hard = normal(400, mean=0.0)
    better = hard + 0.05 + 0.01 * normal(400, mean=0.0, seed=2)
    assert p_value(means(better) - means(hard)) < 0.001


def test_no_difference_has_a_p_value_of_1():
    assert p_value(np.zeros(100)) == 1.0


def test_few_resamples_cannot_tell_more_than_they_can():
    assert p_value(np.ones(99)) == 0.02


def test_every_image_once_is_the_corpus():
    scores = caption_scores(HYPOTHESES, REFERENCES)
    sampled = resampled_scores(np.ones((1, 3)), scores.statistics)
    assert {key: float(value[0]) for key, value in sampled.items()} == pytest.approx(
        {key: scores.corpus[key] for key in sampled}
    )


def test_bleu_is_that_of_the_images_drawn():
    scores = caption_scores(HYPOTHESES, REFERENCES)
    sampled = resampled_scores(np.array([[2.0, 0.0, 1.0]]), scores.statistics)
    drawn = [0, 0, 2]
    expected = caption_scores([HYPOTHESES[n] for n in drawn], [REFERENCES[n] for n in drawn])
    assert sampled["bleu4"][0] == pytest.approx(expected.corpus["bleu4"])
    assert sampled["bleu1"][0] == pytest.approx(expected.corpus["bleu1"])
