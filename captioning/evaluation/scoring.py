"""Captions of a set of pictures enter; scores, their noise, and how far people are leave.

A person is scored as a captioner is: each reference in turn against the others of its picture.
Captions are scored against as many, so that the two can be compared. Next: results.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from captioning.data.records import Record
from captioning.evaluation.intervals import resample, resampled_scores
from captioning.metrics.bert_similarity import Scale, TextEncoder, pool_tokens
from captioning.metrics.compute import (
    caption_variety,
    compute_statistics,
    corpus_scores,
    image_scores,
    text_inputs,
)
from captioning.metrics.java import JavaScores
from captioning.metrics.score_table import BERT, TRUTH
from captioning.metrics.semantic import Corpus, WeightedText

ROUNDS = 5  # of references left out, at most


class Measured(NamedTuple):
    """Scores by name: of the corpus, of each image, and of each resample of the images."""

    corpus: dict[str, float]
    per_image: dict[str, np.ndarray]
    sampled: dict[str, np.ndarray]


class System(NamedTuple):
    """A captioner's captions, one a picture, and their scores.

    `held_out` is the mean over rounds that each leave out one reference a picture; None where a
    picture has a single one.
    """

    label: str
    captions: list[str]
    scores: Measured
    held_out: Measured | None


class Scorer:
    """Scores captions of `records`; references are embedded and resamples drawn once.

    `is_true(image_id, caption)` adds the score `true`, where the truth is known; `also` names more
    scores, from captions and references as in metrics/java.py.
    """

    def __init__(
        self,
        records: Sequence[Record],
        text_encoder: TextEncoder,
        is_true: Callable[[str, str], bool] | None = None,
        seed: int = 0,
        also: Mapping[str, Callable[..., JavaScores]] | None = None,
    ):
        self.also = also or {}
        self.records = records
        self.text_encoder = text_encoder
        self.is_true = is_true
        self.references = [list(record.captions) for record in records]
        counts = [len(captions) for captions in self.references]
        self.fewest, self.most = min(counts), max(counts)
        self.rounds = min(self.fewest, ROUNDS) if self.fewest > 1 else 0
        tokens = iter(text_encoder.tokens([one for some in self.references for one in some]))
        by_image = [list(islice(tokens, count)) for count in counts]
        self.corpus = Corpus.of(by_image)
        self.weighed = [[self.corpus.weigh(one) for one in some] for some in by_image]
        self.scale = Scale.of([pool_tokens(some) for some in by_image])
        self.draws = resample(len(records), seed=seed)

    def system(self, label: str, captions: list[str]) -> System:
        """Score a captioner, against all references and against all but one."""
        weighed = [self.corpus.weigh(one) for one in self.text_encoder.tokens(captions)]
        ids = [record.image_id for record in self.records]
        truth = {TRUTH: (captions, ids, self.is_true)} if self.is_true else {}
        scores = self._measure(captions, weighed, self.references, self.weighed, truth)
        rounds = [self._round(at, captions, weighed) for at in range(self.rounds)]
        return System(label, captions, scores, _mean(rounds))

    def people(self) -> Measured | None:
        """Score each reference against the others; None where a picture has a single one."""
        rounds = []
        for at in range(self.rounds):
            out = self._left_out(at)
            captions = [some[place] for some, place in zip(self.references, out, strict=True)]
            weighed = [some[place] for some, place in zip(self.weighed, out, strict=True)]
            rounds.append(self._round(at, captions, weighed))
        return _mean(rounds)

    def _left_out(self, at: int) -> list[int]:
        # Flickr8k keeps a picture's references in alphabetical order: a round takes another place
        # of each picture.
        return [(number + at) % len(some) for number, some in enumerate(self.references)]

    def _round(self, at: int, captions: list[str], weighed: list[WeightedText]) -> Measured:
        out = self._left_out(at)
        others = (
            [some[:place] + some[place + 1 :] for some, place in zip(texts, out, strict=True)]
            for texts in (self.references, self.weighed)
        )
        return self._measure(captions, weighed, *others)

    def _measure(
        self,
        captions: list[str],
        weighed: list[WeightedText],
        references: list[list[str]],
        weighed_references: list[list[WeightedText]],
        more: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> Measured:
        inputs = text_inputs(captions, references) | {BERT: (weighed, weighed_references)}
        statistics = compute_statistics(inputs | (more or {}))
        corpus = corpus_scores(statistics) | caption_variety(captions)
        corpus |= self.scale.rescale(corpus) if self.scale else {}
        sampled = resampled_scores(self.draws, statistics)
        measured = Measured(corpus, image_scores(statistics), sampled)
        for name, metric in self.also.items():
            scores = metric(captions, references)
            measured.corpus[name] = float(scores.corpus)
            measured.per_image[name] = scores.per_image
            # METEOR's corpus value is not the mean over images, but varies as it does.
            noise = scores.per_image - scores.per_image.mean()
            measured.sampled[name] = scores.corpus + self.draws @ noise / len(noise)
        return measured


def _mean(rounds: list[Measured]) -> Measured | None:
    if not rounds:
        return None
    return Measured(
        *(
            {name: np.mean([one[name] for one in scores], axis=0) for name in scores[0]}
            for scores in zip(*rounds, strict=True)
        )
    )
