"""Scores of captions by name, as score_table.py lists them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from captioning.metrics.cider import DocumentFrequencies
from captioning.metrics.ngrams import tokenize_captions
from captioning.metrics.score_table import DOCUMENTS, TABLE, WORDS

# What the table's functions return, by function: `[image]` or `[image k]`.
Statistics = Mapping[Callable[..., Any], np.ndarray]


def caption_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return the corpus scores of words, of one caption per image."""
    statistics = compute_statistics(text_inputs(hypotheses, references))
    return corpus_scores(statistics) | caption_variety(hypotheses)


def text_inputs(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: DocumentFrequencies | None = None,
) -> dict[str, tuple[Any, ...]]:
    """Return the inputs of the scores of words; `documents` are those of all images."""
    documents = documents or DocumentFrequencies.of(references)
    return {WORDS: (hypotheses, references), DOCUMENTS: (hypotheses, references, documents)}


def compute_statistics(inputs: Mapping[str, tuple[Any, ...]]) -> Statistics:
    """Call each function of the table that these are inputs of, once."""
    functions = {score.function: score.inputs for score in TABLE.values() if score.function}
    return {
        function: np.asarray(function(*inputs[source]), dtype=float)
        for function, source in functions.items()
        if source in inputs
    }


def aggregate_scores(sums: Statistics, images: int | np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of sets of images from the sums of their statistics."""
    return {
        key: score.aggregate(sums[score.function], images)
        for key, score in TABLE.items()
        if score.function in sums
    }


def image_scores(statistics: Statistics) -> dict[str, Float[np.ndarray, " image"]]:
    """Return the scores of each image that are shown beside it."""
    scores = aggregate_scores(statistics, 1)
    return {key: values for key, values in scores.items() if TABLE[key].rank < 3}


def corpus_scores(statistics: Statistics) -> dict[str, float]:
    """Return the scores of all images together."""
    sums = {function: rows.sum(0, keepdims=True) for function, rows in statistics.items()}
    images = len(next(iter(statistics.values())))
    return {key: float(score[0]) for key, score in aggregate_scores(sums, images).items()}


def caption_variety(captions: Sequence[str]) -> dict[str, float]:
    """Return the share of `distinct` captions, and the mean number of `words`."""
    texts = [words for words, _ in tokenize_captions(captions, [[""]] * len(captions))]
    return {"distinct": len(set(texts)) / len(texts), "words": sum(map(len, texts)) / len(texts)}
