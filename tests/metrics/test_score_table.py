"""The table of scores: which way is better, and that nothing depends on a row's place."""

import numpy as np
import pytest

from captioning import UserError
from captioning.evaluation.intervals import resample, resampled_scores
from captioning.metrics.compute import (
    caption_scores,
    compute_statistics,
    corpus_scores,
    text_inputs,
)
from captioning.metrics.score_table import TABLE, WORDS, Score, factor_of, format_score, mode_of

HYPOTHESES = ["a dog runs", "a cat", "two men play ball on grass"]
REFERENCES = [["a dog runs fast", "the dog"], ["a cat sleeps"], ["two men on grass", "men play"]]


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val/cider", "max"),
        ("val/true", "max"),
        ("val/loss", "min"),
        ("train/reward", "max"),
        ("val/auxiliary_loss", "min"),
    ],
)
def test_which_way_is_better_follows_from_the_monitored_score(monitor, mode):
    assert mode_of(monitor) == mode


@pytest.mark.parametrize(
    ("monitor", "closest"),
    [
        ("cider", "val/cider"),
        ("val/bleu_4", "val/bleu4"),
        ("val/los", "val/loss"),
        ("val/meteor", "val/"),  # computed on request, never in training
        ("", "val/"),
    ],
)
def test_a_monitor_that_nothing_logs_is_an_error_that_names_the_closest(monitor, closest):
    with pytest.raises(UserError, match=f"nothing logs monitor={monitor}; did you mean {closest}"):
        mode_of(monitor)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("cider", 1.234, "123.4"),  # as computed, 0 to 10
        ("val/bleu4", 0.1871, "18.7"),
        ("distinct", 1.0, "100.0"),
        ("val/loss", 3.676, "3.68"),
        ("words", 10.27, "10.27"),
    ],
)
def test_scores_are_shown_x100_except_loss_and_words(key, value, shown):
    assert format_score(key, value) == shown


def test_a_score_that_is_added_changes_no_other(request):
    draws = resample(3, samples=50)

    def compute():
        statistics = compute_statistics(text_inputs(HYPOTHESES, REFERENCES))
        return corpus_scores(statistics), resampled_scores(draws, statistics)

    before = compute()
    request.getfixturevalue("added")
    after = compute()
    for old, new in zip(before, after, strict=True):
        for key, values in old.items():
            np.testing.assert_array_equal(new[key], values)
    corpus, sampled = (scores["letters"] for scores in after)
    letters = [len(caption) for caption in HYPOTHESES]
    assert corpus == np.mean(letters)
    np.testing.assert_allclose(sampled, draws @ letters / 3)


def test_a_score_that_is_added_can_be_monitored_and_shown_as_it_is(added):
    assert mode_of("val/letters") == "min"
    keys = ("val/cider", "bleu4", "val/loss", "train/loss", "words", "letters")
    assert [factor_of(key) for key in keys] == [100, 100, 1, 1, 1, 1]


def test_a_score_that_is_no_mean_says_how_to_aggregate_it(monkeypatch):
    def lengths(hypotheses, references):
        return np.array([float(len(caption)) for caption in hypotheses])

    monkeypatch.setitem(TABLE, "letters", Score("", WORDS, lengths, aggregate=lambda sums, _: sums))
    assert caption_scores(HYPOTHESES, REFERENCES)["letters"] == sum(map(len, HYPOTHESES))
