"""Captions of a set of pictures enter; scores, their noise, and how far people are leave.

A person is scored as a captioner is: each reference in turn against the others of its picture.
Captions are scored against as many, so that the two can be compared. Next: results.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from captioning.data.records import Record
from captioning.metrics.bert_similarity import (
    Scale,
    TextEncoder,
    Vectors,
    pooled,
    similarity,
    similarity_scores,
)
from captioning.metrics.bootstrap import corpus_scores, resample
from captioning.metrics.captions import caption_scores
from captioning.metrics.scores import Scores
from captioning.metrics.semantic import Corpus, Weighed, semantic

ROUNDS = 5  # of references left out, at most


class Measured(NamedTuple):
    """Scores by name: of the corpus, of each image, and of each resample of the images."""

    corpus: dict[str, float]
    per_image: dict[str, np.ndarray]
    sampled: dict[str, np.ndarray]


class Meaning(NamedTuple):
    """Texts as a BERT sees them: a vector each, and weighed tokens."""

    vectors: Vectors
    weighed: list[Weighed]

    def pick(self, places: Sequence[int]) -> Meaning:
        """Return those of some of the texts."""
        return Meaning(self.vectors[list(places)], [self.weighed[place] for place in places])


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
    scores, from captions and references as in metrics/meteor.py.
    """

    def __init__(
        self,
        records: Sequence[Record],
        text_encoder: TextEncoder,
        is_true: Callable[[str, str], bool] | None = None,
        seed: int = 0,
        also: Mapping[str, Callable[..., Scores]] | None = None,
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
        self.meanings = [
            Meaning(pooled(some), [self.corpus.weigh(one) for one in some]) for some in by_image
        ]
        self.scale = Scale.of([one.vectors for one in self.meanings])
        self.draws = resample(len(records), seed=seed)

    def system(self, label: str, captions: list[str]) -> System:
        """Score a captioner, against all references and against all but one."""
        tokens = self.text_encoder.tokens(captions)
        meaning = Meaning(pooled(tokens), [self.corpus.weigh(one) for one in tokens])
        scores = self._measure(captions, meaning, self.references, self.meanings)
        if self.is_true:
            pairs = zip(self.records, captions, strict=True)
            true = np.array([float(self.is_true(one.image_id, said)) for one, said in pairs])
            scores.per_image["true"] = true
            scores.sampled["true"] = self.draws @ true / len(true)
            scores.corpus["true"] = float(true.mean())
        rounds = [self._round(at, captions, meaning) for at in range(self.rounds)]
        return System(label, captions, scores, _mean(rounds))

    def people(self) -> Measured | None:
        """Score each reference against the others; None where a picture has a single one."""
        rounds = []
        for at in range(self.rounds):
            out = self._left_out(at)
            said = [some[place] for some, place in zip(self.references, out, strict=True)]
            each = [some.pick([place]) for some, place in zip(self.meanings, out, strict=True)]
            vectors = torch.cat([one.vectors for one in each])
            meaning = Meaning(vectors, [one.weighed[0] for one in each])
            rounds.append(self._round(at, said, meaning))
        return _mean(rounds)

    def _left_out(self, at: int) -> list[int]:
        # Flickr8k keeps a picture's references in alphabetical order: a round takes another place
        # of each picture.
        return [(number + at) % len(some) for number, some in enumerate(self.references)]

    def _round(self, at: int, captions: list[str], meaning: Meaning) -> Measured:
        out = self._left_out(at)
        kept = [
            [n for n in range(len(some)) if n != place]
            for some, place in zip(self.references, out, strict=True)
        ]
        pairs = list(zip(self.references, self.meanings, kept, strict=True))
        references = [[some[place] for place in places] for some, _, places in pairs]
        meanings = [some.pick(places) for _, some, places in pairs]
        return self._measure(captions, meaning, references, meanings)

    def _measure(
        self,
        captions: list[str],
        meaning: Meaning,
        references: list[list[str]],
        meanings: list[Meaning],
    ) -> Measured:
        overlap = caption_scores(captions, references)
        cosines = similarity(meaning.vectors, [some.vectors for some in meanings])
        matched = semantic(meaning.weighed, [some.weighed for some in meanings])
        per_image = {
            "rouge_l": overlap.per_image["rouge_l"],
            "cider": overlap.per_image["cider"],
            "semantic": matched.double().numpy(),
            "bert_similarity": cosines.mean.double().numpy(),
            "bert_similarity_best": cosines.best.double().numpy(),
        }
        more = {name: metric(captions, references) for name, metric in self.also.items()}
        per_image |= {name: scores.per_image for name, scores in more.items()}
        sampled = corpus_scores(self.draws, overlap.bleu_counts, per_image)
        corpus = overlap.corpus | similarity_scores(cosines, self.scale)
        corpus["semantic"] = float(matched.mean())
        for name, scores in more.items():
            corpus[name] = float(scores.corpus)
            # METEOR's corpus value is not the mean over images, but varies as it does.
            sampled[name] = sampled[name] + corpus[name] - scores.per_image.mean()
        return Measured(corpus, {"bleu4": overlap.per_image["bleu4"]} | per_image, sampled)


def _mean(rounds: list[Measured]) -> Measured | None:
    if not rounds:
        return None
    return Measured(
        *(
            {name: np.mean([one[name] for one in scores], axis=0) for name in scores[0]}
            for scores in zip(*rounds, strict=True)
        )
    )
