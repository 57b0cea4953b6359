"""Scores of the validation captions, logged at the end of each validation epoch.

`CaptionScores` logs the n-gram metrics, `BertSimilarity` the closeness in meaning. Both log in
`on_validation_epoch_end`, so that checkpointing and early stopping may monitor any of them. Of
several processes each scores its share of the pictures, and all get the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytorch_lightning as pl

from captioning import UserError
from captioning.metrics.bert_similarity import Scale, TextEncoder, Tokens, pool_tokens
from captioning.metrics.cider import DocumentFrequencies
from captioning.metrics.compute import (
    caption_variety,
    compute_statistics,
    corpus_scores,
    image_scores,
    text_inputs,
)
from captioning.metrics.score_table import BERT, DOCUMENTS, TRUTH, WORDS, keys_from
from captioning.metrics.semantic import Corpus
from captioning.training.validation import (
    Generated,
    ValidationCaptions,
    all_gather_interleaved,
    share,
)


class CaptionScores(pl.Callback):
    """Logs as val/KEY the scores of table.py that run from words, such as val/cider (CIDEr-D).

    Where the data knows the truth of its pictures (`data=scenes`), also val/true: the share of
    captions that are true of their picture.
    """

    needs_captions = True

    def __init__(self) -> None:
        self.keys = keys_from(WORDS, DOCUMENTS, TRUTH)
        self._documents: DocumentFrequencies | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score this epoch's captions; the check before training is left out."""
        if trainer.sanity_checking:
            return
        generated = ValidationCaptions.of(trainer)
        if self._documents is None:  # the same images every epoch
            self._documents = DocumentFrequencies.of([one.record.captions for one in generated])
        mine = share(trainer, generated)
        captions = [one.caption for one in mine]
        references = [one.record.captions for one in mine]
        inputs = text_inputs(captions, references, self._documents)
        if is_true := getattr(trainer.datamodule.source, "is_true", None):
            inputs[TRUTH] = (captions, [one.record.image_id for one in mine], is_true)
        scores = score_captions(trainer, generated, inputs)
        log_finite(pl_module, scores | caption_variety([one.caption for one in generated]))


class BertSimilarity(pl.Callback):
    """Logs as val/KEY the scores of table.py that run from a frozen BERT.

    val/bert_similarity is the mean cosine to an image's references, val/bert_similarity_best the
    cosine to the closest; with `_rescaled`, 0 is a random image's caption and 1 a human's caption
    of the same image against the others. val/semantic matches token by token, to follow human
    judgement more closely (metrics/semantic.py). References are read once a run, and a caption
    that was there the epoch before is not read again.
    """

    needs_captions = True

    def __init__(self, text_encoder: TextEncoder):
        self.keys = keys_from(BERT)
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
        weighed = [self._corpus.weigh(self._read[caption]) for caption in captions]
        scores = score_captions(trainer, generated, {BERT: (weighed, self._weighed)})
        log_finite(pl_module, scores | (self._scale.rescale(scores) if self._scale else {}))

    def _embed_references(self, trainer: pl.Trainer, references: list[tuple[str, ...]]) -> None:
        # The same images in the same order every epoch.
        tokens = iter(self.text_encoder.tokens([text for texts in references for text in texts]))
        by_image = [list(islice(tokens, len(texts))) for texts in references]
        self._scale = Scale.of(
            all_gather_interleaved(trainer, [pool_tokens(texts) for texts in by_image])
        )
        parts = all_gather_interleaved(trainer, [Corpus.of(by_image)])
        self._corpus = Corpus.merged(parts) if parts[1:] else parts[0]
        self._weighed = [[self._corpus.weigh(text) for text in texts] for texts in by_image]


def score_captions(
    trainer: pl.Trainer, generated: Sequence[Generated], inputs: dict[str, tuple[Any, ...]]
) -> dict[str, float]:
    """Return the corpus scores that run from `inputs`, which are of this process's share of the
    images, and note those of each image in `generated`."""
    statistics = compute_statistics(inputs)
    rows = all_gather_interleaved(trainer, list(zip(*statistics.values(), strict=True)))
    columns = map(np.array, zip(*rows, strict=True))
    statistics = dict(zip(statistics, columns, strict=True))
    for key, values in image_scores(statistics).items():
        for one, value in zip(generated, values.tolist(), strict=True):
            one.scores[key] = value
    return corpus_scores(statistics)


def log_finite(module: pl.LightningModule, scores: dict[str, float]) -> None:
    """Log as val/KEY; a score that is not a number stops the run, and is never saved as best."""
    for key, value in scores.items():
        if not math.isfinite(value):
            raise UserError(f"val/{key} is {value} at step {module.global_step}; nothing was saved")
        # Every process has the scores of all captions: equal values need no reduction.
        module.log(f"val/{key}", value, rank_zero_only=False, sync_dist=False)
