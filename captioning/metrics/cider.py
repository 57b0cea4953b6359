"""CIDEr-D (Vedantam et al. 2015), equal to what coco-caption prints as CIDEr.

The D form clips n-gram weights, and has a Gaussian penalty on the difference in length.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from captioning import UserError
from captioning.metrics.ngrams import MAX_NGRAM, Words, count_ngrams, tokenize_captions

SIGMA = 6.0  # of the Gaussian length penalty, in bigrams


class DocumentFrequencies(NamedTuple):
    """How many of `images` images have an n-gram in their references: the DF of TF-IDF."""

    counts: Counter[Words]
    images: int

    @classmethod
    def of(cls, references: Sequence[Sequence[str]]) -> DocumentFrequencies:
        """Count in the references of all images. Raises UserError for a single image."""
        if len(references) == 1:
            raise UserError("CIDEr-D weighs words across images; give two images or more, not one")
        images = tokenize_captions([""] * len(references), references)
        ngrams = (set().union(*map(count_ngrams, others)) for _, others in images)
        return cls(Counter(ngram for of_image in ngrams for ngram in of_image), len(images))


class _TfIdf(NamedTuple):
    """A caption's TF-IDF vectors, one dict and one norm an n-gram order."""

    weights: list[dict[Words, float]]
    norms: list[float]
    length: int


def cider_d(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: DocumentFrequencies | None = None,
) -> Float[np.ndarray, " image"]:
    """Return CIDEr-D of each image, 0 to 10.

    A word weighs less the more images have it in their references (or in the `documents` given),
    so a value holds for one set of images.
    """
    images = tokenize_captions(hypotheses, references)
    documents = documents or DocumentFrequencies.of(references)
    weigh = lru_cache(maxsize=2**14)(partial(_weigh, documents=documents))  # captions recur
    return np.array(
        [np.mean([_similarity(weigh(words), weigh(o)) for o in others]) for words, others in images]
    )


def _weigh(caption: Words, documents: DocumentFrequencies) -> _TfIdf:
    counts = count_ngrams(caption)
    weights: list[dict[Words, float]] = [{} for _ in range(MAX_NGRAM)]
    for ngram, count in counts.items():
        idf = math.log(documents.images / documents.counts.get(ngram, 1))
        weights[len(ngram) - 1][ngram] = count * idf
    norms = [math.sqrt(sum(weight**2 for weight in order.values())) for order in weights]
    # coco-caption takes the number of bigrams for the length.
    return _TfIdf(weights, norms, sum(counts[bigram] for bigram in weights[1]))


def _similarity(hypothesis: _TfIdf, reference: _TfIdf) -> float:
    total = 0.0
    for order in range(MAX_NGRAM):
        norm = hypothesis.norms[order] * reference.norms[order]
        if norm > 0:
            other = reference.weights[order]
            # Clipped, so that a word gains nothing by being repeated.
            shared = (
                min(weight, other[ngram]) * other[ngram]
                for ngram, weight in hypothesis.weights[order].items()
                if ngram in other
            )
            total += sum(shared) / norm
    difference = hypothesis.length - reference.length
    return 10 * total / MAX_NGRAM * math.exp(-(difference**2) / (2 * SIGMA**2))
