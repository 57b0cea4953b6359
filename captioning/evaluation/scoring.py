"""Score the captions of systems and of humans, with bootstrap resamples of the images.

Humans are scored by one reference of each image against the others. Systems are also scored
against as many, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from captioning.data.records import Record
from captioning.evaluation.intervals import resample, resampled_scores
from captioning.metrics import compute
from captioning.metrics.bert_similarity import Scale, TextEncoder, pool_tokens
from captioning.metrics.image_fit import FitModel, FitText
from captioning.metrics.java import JavaScores
from captioning.metrics.score_table import BERT, FIT, TRUTH, WORDS
from captioning.metrics.semantic import Corpus, WeightedText, semantic

MAX_ROUNDS = 5  # of held-out references


class BootstrapScores(NamedTuple):
    """Scores by name: of the corpus, of each image, and of each resample of the images."""

    corpus: dict[str, float]
    per_image: dict[str, np.ndarray]
    sampled: dict[str, np.ndarray]


class System(NamedTuple):
    """A system's captions, one per image, and their scores."""

    label: str
    captions: list[str]
    scores: BootstrapScores  # against all references
    held_out: BootstrapScores | None  # against all but one; None where an image has a single one


class Scorer:
    """Scores captions of `records`; references are embedded and resamples drawn once.

    `is_true(image_id, caption)` adds the score `true`, where the truth is known; `also` adds scores
    by name, functions of captions and references as those of metrics/java.py; `fit_model`, with the
    `features` of the records, the scores of metrics/image_fit.py.
    """

    def __init__(
        self,
        records: Sequence[Record],
        text_encoder: TextEncoder,
        is_true: Callable[[str, str], bool] | None = None,
        seed: int = 0,
        also: Mapping[str, Callable[..., JavaScores]] | None = None,
        fit_model: FitModel | None = None,
        features: Tensor | None = None,
    ):
        self.records = records
        self.text_encoder = text_encoder
        self.is_true = is_true
        self.also = also or {}
        self.fit_model = fit_model
        self.references = [list(record.captions) for record in records]
        counts = [len(captions) for captions in self.references]
        self.fewest, self.most = min(counts), max(counts)
        self.rounds = min(self.fewest, MAX_ROUNDS) if self.fewest > 1 else 0
        tokens = iter(text_encoder.tokens([text for texts in self.references for text in texts]))
        by_image = [list(islice(tokens, count)) for count in counts]
        self.corpus = Corpus.of(by_image)
        self.scale = Scale.of([pool_tokens(texts) for texts in by_image])
        # The references, by what scores are computed from; each round holds out one of an image.
        self.sources = {
            WORDS: self.references,
            BERT: [[self.corpus.weigh(text) for text in texts] for texts in by_image],
        }
        if fit_model:
            self.images = fit_model.expect(features)
            self.sources[FIT] = [
                self._read_fit(*pair)
                for pair in zip(self.references, self.sources[BERT], strict=True)
            ]
        self.held_out_rounds = [
            {source: _hold_out(by_image, number) for source, by_image in self.sources.items()}
            for number in range(self.rounds)
        ]
        self.draws = resample(len(records), seed=seed)

    def system(self, label: str, captions: list[str]) -> System:
        """Score a system's captions."""
        hypotheses = self._read(captions)
        ids = [record.image_id for record in self.records]
        truth = {TRUTH: (captions, ids, self.is_true)} if self.is_true else {}
        scores = self._measure(
            {source: (hypotheses[source], texts) for source, texts in self.sources.items()}, truth
        )
        rounds = [
            self._measure({key: (hypotheses[key], others) for key, (_, others) in of_round.items()})
            for of_round in self.held_out_rounds
        ]
        return System(label, captions, scores, _mean(rounds))

    def human(self) -> BootstrapScores | None:
        """Score each reference against the others; None where an image has a single one."""
        return _mean([self._measure(of_round) for of_round in self.held_out_rounds])

    def closeness(self, captions: Sequence[str]) -> Float[np.ndarray, " image"]:
        """Return how often a caption is as close to the references as one of them is, 0 to 1.

        By `semantic`: each reference in turn is compared with the others, as is the caption.
        """
        hypotheses = self._read(captions)[BERT]
        rounds = [
            semantic(hypotheses, others) >= semantic(held_out, others)
            for held_out, others in (of_round[BERT] for of_round in self.held_out_rounds)
        ]
        return np.mean([each.numpy() for each in rounds], axis=0)

    def _read(self, captions: Sequence[str]) -> dict[str, list[Any]]:
        """Return captions as the references in `sources` are."""
        weighed = [self.corpus.weigh(text) for text in self.text_encoder.tokens(captions)]
        fitted = {FIT: self._read_fit(captions, weighed)} if self.fit_model else {}
        return {WORDS: list(captions), BERT: weighed} | fitted

    def _read_fit(self, captions: Sequence[str], texts: Sequence[WeightedText]) -> list[FitText]:
        return self.fit_model.read(captions, torch.stack([text.pooled for text in texts]))

    def _measure(
        self,
        pairs: Mapping[str, tuple[list, list[list]]],
        truth: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> BootstrapScores:
        """Score captions with references, as each of `sources` has them."""
        texts = pairs[WORDS]
        inputs = compute.text_inputs(*texts) | {BERT: pairs[BERT]} | (truth or {})
        if FIT in pairs:
            inputs[FIT] = (*pairs[FIT], self.images)
        statistics = compute.compute_statistics(inputs)
        corpus = compute.corpus_scores(statistics) | compute.caption_variety(texts[0])
        corpus |= self.scale.rescale(corpus) if self.scale else {}
        per_image = compute.image_scores(statistics)
        sampled = resampled_scores(self.draws, statistics)
        for name, metric in self.also.items():
            scores = metric(*texts)
            corpus[name], per_image[name] = float(scores.corpus), scores.per_image
            # METEOR's corpus value is not the mean over images, but varies as it does.
            noise = scores.per_image - scores.per_image.mean()
            sampled[name] = scores.corpus + self.draws @ noise / len(noise)
        return BootstrapScores(corpus, per_image, sampled)


def _hold_out(by_image: list[list], number: int) -> tuple[list, list[list]]:
    """Return an item of each image, another one in each round, and all the other items."""
    held_out, others = [], []
    for index, items in enumerate(by_image):
        place = (index + number) % len(items)  # varies, as Flickr8k sorts an image's references
        held_out.append(items[place])
        others.append(items[:place] + items[place + 1 :])
    return held_out, others


def _mean(rounds: list[BootstrapScores]) -> BootstrapScores | None:
    if not rounds:
        return None
    means = [
        {name: np.mean([scores[name] for scores in parts], axis=0) for name in parts[0]}
        for parts in zip(*rounds, strict=True)
    ]
    return BootstrapScores(*means)
