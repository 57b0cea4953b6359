"""Scores of the validation captions, logged at the end of each validation epoch.

`CaptionScores` logs the n-gram metrics, `BertSimilarity` the closeness in meaning. Both log in
`on_validation_epoch_end`, so that checkpointing and early stopping may monitor any of them.
"""

from __future__ import annotations

import math

import pytorch_lightning as pl

from captioning.callbacks.captions import ValidationCaptions
from captioning.data.records import UserError
from captioning.metrics.bert_similarity import Scale, TextEncoder, similarity
from captioning.metrics.captions import caption_scores


class CaptionScores(pl.Callback):
    """Logs val/bleu1 … val/bleu4, val/rouge_l, val/cider (CIDEr-D), val/distinct, val/words.

    Where the data knows the truth of its pictures (`data=scenes`), also val/true: the share of
    captions that are true of their picture.
    """

    keys = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "distinct", "words", "true")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score this epoch's captions; the check before training is left out."""
        if trainer.sanity_checking:
            return
        generated = ValidationCaptions.of(trainer)
        hypotheses = [one.caption for one in generated]
        measured = caption_scores(hypotheses, [one.record.captions for one in generated])
        for number, one in enumerate(generated):
            one.scores.update({key: float(row[number]) for key, row in measured.per_image.items()})
        scores = dict(measured.corpus)
        is_true = getattr(trainer.datamodule.source, "is_true", None)
        if is_true:
            for one in generated:
                one.scores["true"] = float(is_true(one.record.image_id, one.caption))
            scores["true"] = sum(one.scores["true"] for one in generated) / len(generated)
        log_finite(pl_module, scores)


class BertSimilarity(pl.Callback):
    """Logs how close in meaning the captions are to their references, by a frozen BERT.

    val/bert_similarity is the mean cosine to an image's references, val/bert_similarity_best the
    cosine to the closest; with `_rescaled`, 0 is a random image's caption and 1 a human's caption
    of the same image against the others. References are embedded once a run.
    """

    keys = (
        "bert_similarity",
        "bert_similarity_best",
        "bert_similarity_rescaled",
        "bert_similarity_best_rescaled",
    )

    def __init__(self, text_encoder: TextEncoder):
        self.text_encoder = text_encoder
        self._references: dict[str, object] = {}
        self._scale: Scale | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Embed this epoch's captions and log their cosines."""
        if trainer.sanity_checking:
            return
        self.text_encoder.model.to(pl_module.device)
        generated = ValidationCaptions.of(trainer)
        if not self._references:
            self._embed_references([one.record for one in generated])
        references = [self._references[one.record.image_id] for one in generated]
        measured = similarity(self.text_encoder([one.caption for one in generated]), references)
        for one, mean, best in zip(generated, measured.mean, measured.best, strict=True):
            one.scores["bert_similarity"] = float(mean)
            one.scores["bert_similarity_best"] = float(best)
        scores = {
            "bert_similarity": float(measured.mean.mean()),
            "bert_similarity_best": float(measured.best.mean()),
        }
        if self._scale:
            rescaled = self._scale.rescale(measured)
            scores["bert_similarity_rescaled"] = float(rescaled.mean.mean())
            scores["bert_similarity_best_rescaled"] = float(rescaled.best.mean())
        log_finite(pl_module, scores)

    def _embed_references(self, records: list) -> None:
        texts = [caption for record in records for caption in record.captions]
        vectors = self.text_encoder(texts).split([len(record.captions) for record in records])
        self._references = {
            record.image_id: rows for record, rows in zip(records, vectors, strict=True)
        }
        self._scale = Scale.of(vectors)


def log_finite(module: pl.LightningModule, scores: dict[str, float]) -> None:
    """Log as val/KEY; a score that is not a number stops the run, and is never saved as best."""
    for key, value in scores.items():
        if not math.isfinite(value):
            raise UserError(f"val/{key} is {value} at step {module.global_step}; nothing was saved")
        # Every process scores all captions: equal values need no reduction.
        module.log(f"val/{key}", value, rank_zero_only=False, sync_dist=False)
