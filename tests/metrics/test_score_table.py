"""The table of scores: which way is better, and that nothing depends on a row's place."""

import numpy as np
import pytest

from captioning import UserError
from captioning.evaluation.intervals import resample, resampled_scores
from captioning.metrics.compute import caption_scores
from captioning.metrics.ngrams import Scores
from captioning.metrics.score_table import TABLE, WORDS, Score, factor_of, mode_of

HYPOTHESES = ["a dog runs", "a cat", "two men play ball on grass"]
REFERENCES = [["a dog runs fast", "the dog"], ["a cat sleeps"], ["two men on grass", "men play"]]


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val/cider", "max"),
        ("val/bert_similarity_best_rescaled", "max"),
        ("val/true", "max"),
        ("val/loss", "min"),
        ("train/loss", "min"),
        ("train/reward", "max"),
        ("val/auxiliary_loss", "min"),
    ],
)
def test_which_way_is_better_follows_from_what_is_monitored(monitor, mode):
    assert mode_of(monitor) == mode


@pytest.mark.parametrize(
    ("monitor", "closest"),
    [
        ("val/ciderd", "val/cider"),
        ("cider", "val/cider"),
        ("val/bleu_4", "val/bleu4"),
        ("val/los", "val/loss"),
        ("vall/loss", "val/loss"),
        ("val/meteor", "val/"),  # computed where it is asked for, never in training
        ("", "val/"),
    ],
)
def test_what_nothing_logs_is_an_error_that_names_the_closest(monitor, closest):
    with pytest.raises(UserError, match=f"nothing logs monitor={monitor}; did you mean {closest}"):
        mode_of(monitor)


def test_a_score_that_is_added_changes_no_other(request):
    before = caption_scores(HYPOTHESES, REFERENCES)
    draws = resample(3, samples=50)
    sampled = resampled_scores(draws, before.statistics)
    request.getfixturevalue("added")
    after = caption_scores(HYPOTHESES, REFERENCES)
    assert {key: after.corpus[key] for key in before.corpus} == before.corpus
    assert after.corpus["letters"] == np.mean([len(one) for one in HYPOTHESES])
    assert after.per_image["letters"].tolist() == [len(one) for one in HYPOTHESES]
    for key, values in before.per_image.items():
        np.testing.assert_array_equal(after.per_image[key], values)
    resampled = resampled_scores(draws, after.statistics)
    for key, values in sampled.items():
        np.testing.assert_array_equal(resampled[key], values)
    lengths = draws @ [len(one) for one in HYPOTHESES] / 3
    np.testing.assert_allclose(resampled["letters"], lengths)


def test_a_score_that_is_added_can_be_monitored(added):
    assert mode_of("val/letters") == "min"


def test_shares_are_shown_x100_and_losses_and_counts_as_they_are(added):
    keys = ("val/cider", "bleu4", "val/loss", "train/loss", "words", "letters")
    assert [factor_of(key) for key in keys] == [100, 100, 1, 1, 1, 1]


def test_every_score_says_which_way_is_better():
    assert {score.mode for score in TABLE.values()} == {"max", "min"}


def test_a_corpus_score_that_no_mean_is_needs_a_fold(monkeypatch):
    def lengths(hypotheses, references):
        per_image = np.array([float(len(one)) for one in hypotheses])
        return Scores(per_image.sum(), per_image)

    monkeypatch.setitem(TABLE, "letters", Score("letters", WORDS, lengths))
    with pytest.raises(UserError, match=r"letters: .* a fold"):
        caption_scores(HYPOTHESES, REFERENCES)
    folded = Score("letters", WORDS, lambda *one: lengths(*one).per_image, fold=lambda s, n: s)
    monkeypatch.setitem(TABLE, "letters", folded)
    assert caption_scores(HYPOTHESES, REFERENCES).corpus["letters"] == sum(map(len, HYPOTHESES))
