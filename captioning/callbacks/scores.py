"""Scores of the validation captions, logged at the end of each validation epoch.

`CaptionScores` logs the n-gram metrics, `BertSimilarity` the closeness in meaning. Both log in
`on_validation_epoch_end`, so that checkpointing and early stopping may monitor any of them. Of
several processes each scores its share of the pictures, and all get the whole.
"""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytorch_lightning as pl
import torch

from captioning.callbacks.captions import ValidationCaptions, gathered, share
from captioning.data.records import UserError
from captioning.metrics.bert_similarity import (
    Scale,
    Similarity,
    TextEncoder,
    Tokens,
    pooled,
    similarity,
    similarity_scores,
)
from captioning.metrics.captions import corpus_scores, image_scores
from captioning.metrics.cider import Documents
from captioning.metrics.semantic import Corpus, semantic


class CaptionScores(pl.Callback):
    """Logs val/bleu1 … val/bleu4, val/rouge_l, val/cider (CIDEr-D), val/distinct, val/words.

    Where the data knows the truth of its pictures (`data=scenes`), also val/true: the share of
    captions that are true of their picture.
    """

    keys = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "distinct", "words", "true")

    def __init__(self) -> None:
        self._documents: Documents | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score this epoch's captions; the check before training is left out."""
        if trainer.sanity_checking:
            return
        generated = ValidationCaptions.of(trainer)
        hypotheses = [one.caption for one in generated]
        references = [one.record.captions for one in generated]
        if self._documents is None:  # the same images every epoch
            self._documents = Documents.of(references)
        mine = image_scores(share(trainer, hypotheses), share(trainer, references), self._documents)
        measured = corpus_scores(hypotheses, references, np.array(gathered(trainer, list(mine))))
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
    of the same image against the others. val/semantic matches token by token, to follow human
    judgement more closely (metrics/semantic.py). References are read once a run, and a caption
    that was there the epoch before is not read again.
    """

    keys = (
        "semantic",
        "bert_similarity",
        "bert_similarity_best",
        "bert_similarity_rescaled",
        "bert_similarity_best_rescaled",
    )

    def __init__(self, text_encoder: TextEncoder):
        self.text_encoder = text_encoder
        self._scale: Scale | None = None
        self._corpus: Corpus | None = None
        self._read: dict[str, Tokens] = {}  # the captions of the epoch before

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Embed this epoch's captions and log how they compare."""
        if trainer.sanity_checking:
            return
        self.text_encoder.model.to(pl_module.device)
        generated = ValidationCaptions.of(trainer)
        mine = share(trainer, generated)
        if self._corpus is None:
            self._embed_references(trainer, [one.record.captions for one in mine])
        captions = [one.caption for one in mine]
        new = [caption for caption in captions if caption not in self._read]
        self._read |= zip(new, self.text_encoder.tokens(new), strict=True)
        self._read = {caption: self._read[caption] for caption in captions}
        tokens = [self._read[caption] for caption in captions]
        cosines = similarity(pooled(tokens), self._vectors)
        matched = semantic([self._corpus.weigh(one) for one in tokens], self._weighed)
        rows = torch.stack([matched, cosines.mean, cosines.best], dim=1)
        rows = torch.stack(gathered(trainer, list(rows)))
        for one, row in zip(generated, rows.tolist(), strict=True):
            one.scores.update(
                zip(("semantic", "bert_similarity", "bert_similarity_best"), row, strict=True)
            )
        scores = similarity_scores(Similarity(rows[:, 1], rows[:, 2]), self._scale)
        log_finite(pl_module, scores | {"semantic": float(rows[:, 0].mean())})

    def _embed_references(self, trainer: pl.Trainer, references: list[tuple[str, ...]]) -> None:
        # The same images in the same order every epoch.
        tokens = iter(self.text_encoder.tokens([text for texts in references for text in texts]))
        by_image = [list(islice(tokens, len(texts))) for texts in references]
        self._vectors = [pooled(texts) for texts in by_image]
        self._scale = Scale.of(gathered(trainer, self._vectors))
        parts = gathered(trainer, [Corpus.of(by_image)])
        self._corpus = Corpus.merged(parts) if parts[1:] else parts[0]
        self._weighed = [[self._corpus.weigh(text) for text in texts] for texts in by_image]


def log_finite(module: pl.LightningModule, scores: dict[str, float]) -> None:
    """Log as val/KEY; a score that is not a number stops the run, and is never saved as best."""
    for key, value in scores.items():
        if not math.isfinite(value):
            raise UserError(f"val/{key} is {value} at step {module.global_step}; nothing was saved")
        # Every process has the scores of all captions: equal values need no reduction.
        module.log(f"val/{key}", value, rank_zero_only=False, sync_dist=False)
