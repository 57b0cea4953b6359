"""Score the captions of systems and of humans, with bootstrap resamples of the images.

Humans are scored by one reference of each image against the others. Systems are also scored
against as many, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from captioning.data.records import Record
from captioning.evaluation.intervals import resample, resampled_scores
from captioning.metrics import compute
from captioning.metrics.bert_similarity import Scale, TextEncoder, pool_tokens
from captioning.metrics.java import JavaScores
from captioning.metrics.score_table import BERT, TRUTH
from captioning.metrics.semantic import Corpus, WeightedText

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
    by name, functions of captions and references as those of metrics/java.py.
    """

    def __init__(
        self,
        records: Sequence[Record],
        text_encoder: TextEncoder,
        is_true: Callable[[str, str], bool] | None = None,
        seed: int = 0,
        also: Mapping[str, Callable[..., JavaScores]] | None = None,
    ):
        self.records = records
        self.text_encoder = text_encoder
        self.is_true = is_true
        self.also = also or {}
        self.references = [list(record.captions) for record in records]
        counts = [len(captions) for captions in self.references]
        self.fewest, self.most = min(counts), max(counts)
        self.rounds = min(self.fewest, MAX_ROUNDS) if self.fewest > 1 else 0
        tokens = iter(text_encoder.tokens([text for texts in self.references for text in texts]))
        by_image = [list(islice(tokens, count)) for count in counts]
        self.corpus = Corpus.of(by_image)
        self.weighed = [[self.corpus.weigh(text) for text in texts] for texts in by_image]
        self.held_out_rounds = [
            (_hold_out(self.references, number), _hold_out(self.weighed, number))
            for number in range(self.rounds)
        ]
        self.scale = Scale.of([pool_tokens(texts) for texts in by_image])
        self.draws = resample(len(records), seed=seed)

    def system(self, label: str, captions: list[str]) -> System:
        """Score a system's captions."""
        weighed = [self.corpus.weigh(text) for text in self.text_encoder.tokens(captions)]
        ids = [record.image_id for record in self.records]
        truth = {TRUTH: (captions, ids, self.is_true)} if self.is_true else {}
        scores = self._measure((captions, self.references), (weighed, self.weighed), truth)
        rounds = [
            self._measure((captions, references), (weighed, weighed_references))
            for (_, references), (_, weighed_references) in self.held_out_rounds
        ]
        return System(label, captions, scores, _mean(rounds))

    def human(self) -> BootstrapScores | None:
        """Score each reference against the others; None where an image has a single one."""
        return _mean([self._measure(texts, weighed) for texts, weighed in self.held_out_rounds])

    def _measure(
        self,
        texts: tuple[list[str], list[list[str]]],
        weighed: tuple[list[WeightedText], list[list[WeightedText]]],
        truth: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> BootstrapScores:
        inputs = compute.text_inputs(*texts) | {BERT: weighed} | (truth or {})
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
