"""Where scores come from: captions and references enter, curves and word lists leave.

By the caption's length, by the number of references, and by the words that are never said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from captioning.data.tokenizer import tokenize
from captioning.metrics.compute import caption_scores
from captioning.metrics.score_table import TABLE

BANDS = (1, 2, 5, 10, 20, 50, 100, 200)  # how often the references have a word: from … on


class ByLength(NamedTuple):
    """The mean score of the captions of each length, and its standard error."""

    lengths: Int[np.ndarray, " length"]
    means: Float[np.ndarray, " length"]
    errors: Float[np.ndarray, " length"]


def caption_lengths(captions: Sequence[str]) -> Int[np.ndarray, " caption"]:
    """Count the words of each caption."""
    return np.array([len(tokenize(caption)) for caption in captions])


def by_length(lengths: Int[np.ndarray, " image"], scores: Float[np.ndarray, " image"]) -> ByLength:
    """Group the images' scores by length; groups of less than 1 % of the images, or 2, are out."""
    kept, counts = np.unique(lengths, return_counts=True)
    kept = kept[counts >= max(2, len(lengths) / 100)]
    groups = [scores[lengths == length] for length in kept]
    errors = [group.std(ddof=1) / np.sqrt(len(group)) for group in groups]
    return ByLength(kept, np.array([group.mean() for group in groups]), np.array(errors))


def turned(references: Sequence[str], places: int) -> list[str]:
    """Return the references in the same order from another one on, the first after the last."""
    start = places % len(references)
    return [*references[start:], *references[:start]]


def by_references(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Return the main scores of words against the first reference of each image, the first two, …

    It ends where the first image has no more references.
    """
    scored = [
        caption_scores(captions, [some[:count] for some in references])
        for count in range(1, min(map(len, references)) + 1)
    ]
    keys = [key for key in scored[0] if TABLE[key].rank < 3]
    return {key: [scores[key] for scores in scored] for key in keys}


def word_counts(captions: Sequence[str]) -> Counter[str]:
    """Count each word of the captions."""
    return Counter(word for caption in captions for word in tokenize(caption))


class Coverage(NamedTuple):
    """Which of the references' words a captioner says.

    `never` are those it never says, most frequent first, with their count; `bands` has the share
    of words that it says at least once, for words as frequent as `BANDS` begin. `words` is how
    many different words it says. `said` and `known` are shares of the references' words, repeated
    ones counted each time: those it says somewhere, and those the vocabulary has.
    """

    never: list[tuple[str, int]]
    bands: dict[int, float]
    words: int
    said: float
    known: float


def coverage(
    captions: Sequence[str], references: Sequence[Sequence[str]], vocabulary: set[str]
) -> Coverage:
    """Compare the words of the captions, and of the vocabulary, with those of the references."""
    wanted = word_counts([reference for some in references for reference in some])
    said = set(word_counts(captions))
    total = max(1, wanted.total())
    bands = {}
    for low, high in pairwise([*BANDS, max(wanted.values(), default=0) + 1]):
        words = [word for word, count in wanted.items() if low <= count < high]
        if words:
            bands[low] = len(said.intersection(words)) / len(words)
    return Coverage(
        [(word, count) for word, count in wanted.most_common() if word not in said],
        bands,
        len(said),
        sum(count for word, count in wanted.items() if word in said) / total,
        sum(count for word, count in wanted.items() if word in vocabulary) / total,
    )
