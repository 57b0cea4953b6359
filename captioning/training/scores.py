"""Scores of the validation captions, logged at the end of each validation epoch.

Checkpoints and early stopping can monitor them. Each process scores its share of the images; all
get the scores of the whole.
"""

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
    take_share,
)


class CaptionScores(pl.Callback):
    """Logs the scores of score_table.py that are computed from words, such as val/cider (CIDEr-D).

    If the data knows the truth of its images (`data=scenes`), also val/true: the share of captions
    that are true.
    """

    needs_captions = True

    def __init__(self) -> None:
        self.keys = keys_from(WORDS, DOCUMENTS, TRUTH)
        self._documents: DocumentFrequencies | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score this epoch's captions, unless it is the sanity check before training."""
        if trainer.sanity_checking:
            return
        generated = ValidationCaptions.of(trainer)
        if self._documents is None:  # the same images every epoch
            self._documents = DocumentFrequencies.of([each.record.captions for each in generated])
        local = take_share(trainer, generated)
        captions = [each.caption for each in local]
        references = [each.record.captions for each in local]
        inputs = text_inputs(captions, references, self._documents)
        if is_true := getattr(trainer.datamodule.source, "is_true", None):
            inputs[TRUTH] = (captions, [each.record.image_id for each in local], is_true)
        scores = score_captions(trainer, generated, inputs)
        log_finite(pl_module, scores | caption_variety([each.caption for each in generated]))


class BertSimilarity(pl.Callback):
    """Logs the scores of score_table.py that are computed by a frozen BERT.

    Of val/bert_similarity_rescaled, 0 is a random image's caption, and 1 a human's caption against
    the others of its image. References are embedded once per run, and a caption of the epoch before
    is not embedded again.
    """

    needs_captions = True

    def __init__(self, text_encoder: TextEncoder):
        self.keys = keys_from(BERT)
        self.text_encoder = text_encoder
        self._scale: Scale | None = None
        self._corpus: Corpus | None = None
        self._tokens: dict[str, Tokens] = {}  # the captions of the epoch before

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Embed and score this epoch's captions, unless it is the sanity check."""
        if trainer.sanity_checking:
            return
        self.text_encoder.model.to(pl_module.device)
        generated = ValidationCaptions.of(trainer)
        local = take_share(trainer, generated)
        if self._corpus is None:  # the same images every epoch
            self._embed_references(trainer, [each.record.captions for each in local])
        captions = [each.caption for each in local]
        new = [caption for caption in captions if caption not in self._tokens]
        self._tokens |= zip(new, self.text_encoder.tokens(new), strict=True)
        self._tokens = {caption: self._tokens[caption] for caption in captions}
        hypotheses = [self._corpus.weigh(self._tokens[caption]) for caption in captions]
        scores = score_captions(trainer, generated, {BERT: (hypotheses, self._references)})
        log_finite(pl_module, scores | (self._scale.rescale(scores) if self._scale else {}))

    def _embed_references(self, trainer: pl.Trainer, references: list[tuple[str, ...]]) -> None:
        tokens = iter(self.text_encoder.tokens([text for texts in references for text in texts]))
        by_image = [list(islice(tokens, len(texts))) for texts in references]
        vectors = all_gather_interleaved(trainer, [pool_tokens(texts) for texts in by_image])
        self._scale = Scale.of(vectors)
        self._corpus = Corpus.merged(all_gather_interleaved(trainer, [Corpus.of(by_image)]))
        self._references = [[self._corpus.weigh(text) for text in texts] for texts in by_image]


def score_captions(
    trainer: pl.Trainer, generated: Sequence[Generated], inputs: dict[str, tuple[Any, ...]]
) -> dict[str, float]:
    """Return the corpus scores, and store those of each image in `generated`.

    `inputs` are of this process's share of the images.
    """
    statistics = compute_statistics(inputs)
    rows = all_gather_interleaved(trainer, list(zip(*statistics.values(), strict=True)))
    columns = map(np.array, zip(*rows, strict=True))
    statistics = dict(zip(statistics, columns, strict=True))
    for key, values in image_scores(statistics).items():
        for each, value in zip(generated, values.tolist(), strict=True):
            each.scores[key] = value
    return corpus_scores(statistics)


def log_finite(module: pl.LightningModule, scores: dict[str, float]) -> None:
    """Log scores as val/KEY. Raises UserError for one that is not finite: it must not be best."""
    for key, value in scores.items():
        if not math.isfinite(value):
            raise UserError(f"val/{key} is {value} at step {module.global_step}; nothing was saved")
        # Every process has the scores of all captions: equal values need no reduction.
        module.log(f"val/{key}", value, rank_zero_only=False, sync_dist=False)
