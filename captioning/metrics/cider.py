"""CIDEr-D, what coco-caption prints as CIDEr: captions in, agreement with what people say out.

Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation", in its D form: clipped
n-gram weights, a Gaussian penalty on the difference in length, times 10.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from captioning import UserError
from captioning.metrics.ngrams import MAX_NGRAM, Scores, Words, ngrams, tokenized

SIGMA = 6.0  # of the length penalty, in words


class _Vector(NamedTuple):
    """A caption as the weights of its n-grams, one dict and one norm an order."""

    weights: list[dict[Words, float]]
    norms: list[float]
    length: int


class Documents(NamedTuple):
    """How many of `images` images have an n-gram in their references: what words are weighed by."""

    frequency: Counter[Words]
    images: int

    @classmethod
    def of(cls, references: Sequence[Sequence[str]]) -> Documents:
        """Count in the references of two images or more. Raises UserError for one image alone."""
        if len(references) == 1:
            raise UserError("CIDEr-D weighs words across images; give two images or more, not one")
        images = tokenized([""] * len(references), references)
        frequency = Counter(
            ngram for _, others in images for ngram in set().union(*map(ngrams, others))
        )
        return cls(frequency, len(images))


def cider_d(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: Documents | None = None,
) -> Scores:
    """Return CIDEr-D from 0 to 10: `corpus` is the mean of `per_image`, which is `[image]`.

    Papers quote 0.52 as 0.52 or as 52. A word weighs less the more images have it in their
    references, so a value holds for one set of images: compare on the same set only. `documents`
    are these references, or others, such as those of training. An empty hypothesis scores 0.
    Raises UserError as `tokenized` does, and for one image alone without `documents`, where every
    weight is log(1) = 0.
    """
    images = tokenized(hypotheses, references)
    documents = documents or Documents.of(references)
    per_image = []
    for one, others in images:
        hypothesis = _vector(one, documents)
        compared = [_similarity(hypothesis, _vector(other, documents)) for other in others]
        per_image.append(np.mean(compared))
    return Scores(float(np.mean(per_image)), np.array(per_image))


def cider_d_pairs(
    captions: Sequence[str], documents: Documents
) -> Float[np.ndarray, "caption caption"]:
    """Return CIDEr-D of each caption (row) with each (column) as its only reference."""
    (_, words), *_ = tokenized([""], [captions])
    vectors = [_vector(one, documents) for one in words]
    return np.array([[_similarity(one, other) for other in vectors] for one in vectors])


def _vector(caption: Words, documents: Documents) -> _Vector:
    counts = ngrams(caption)
    weights: list[dict[Words, float]] = [{} for _ in range(MAX_NGRAM)]
    for ngram, count in counts.items():
        rarity = math.log(documents.images / documents.frequency.get(ngram, 1))
        weights[len(ngram) - 1][ngram] = count * rarity
    norms = [math.sqrt(sum(weight**2 for weight in order.values())) for order in weights]
    # coco-caption takes the number of bigrams for the length.
    return _Vector(weights, norms, sum(counts[pair] for pair in weights[1]))


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    total = 0.0
    for order in range(MAX_NGRAM):
        norm = hypothesis.norms[order] * reference.norms[order]
        if norm > 0:
            other = reference.weights[order]
            # Clipped: to repeat a word is worth nothing.
            shared = (
                min(weight, other[ngram]) * other[ngram]
                for ngram, weight in hypothesis.weights[order].items()
                if ngram in other
            )
            total += sum(shared) / norm
    difference = hypothesis.length - reference.length
    return 10 * total / MAX_NGRAM * math.exp(-(difference**2) / (2 * SIGMA**2))
