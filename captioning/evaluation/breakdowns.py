"""Analyses of captions: scores by length and by number of references, words, copied sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from captioning.data.tokenizer import tokenize
from captioning.metrics.compute import caption_scores
from captioning.metrics.score_table import TABLE

BANDS = (1, 2, 5, 10, 20, 50, 100, 200)  # lowest counts of a word in the references


class LengthScores(NamedTuple):
    """The mean score of the captions of each length, and its standard error."""

    lengths: Int[np.ndarray, " length"]
    means: Float[np.ndarray, " length"]
    errors: Float[np.ndarray, " length"]


def caption_lengths(captions: Sequence[str]) -> Int[np.ndarray, " caption"]:
    """Count the words of each caption."""
    return np.array([len(tokenize(caption)) for caption in captions])


def scores_by_length(
    lengths: Int[np.ndarray, " image"], scores: Float[np.ndarray, " image"]
) -> LengthScores:
    """Average the images' scores by length; lengths of fewer than 2 images or 1 % are left out."""
    unique, counts = np.unique(lengths, return_counts=True)
    unique = unique[counts >= max(2, len(lengths) / 100)]
    groups = [scores[lengths == length] for length in unique]
    errors = [group.std(ddof=1) / np.sqrt(len(group)) for group in groups]
    return LengthScores(unique, np.array([group.mean() for group in groups]), np.array(errors))


def rotate(references: Sequence[str], start: int) -> list[str]:
    """Return the references from number `start` on, then those before it."""
    start %= len(references)
    return [*references[start:], *references[:start]]


def scores_by_reference_count(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Score against the first reference of each image, the first two, and so on, as far as every
    image has them."""
    scores = [
        caption_scores(captions, [of_image[:count] for of_image in references])
        for count in range(1, min(map(len, references)) + 1)
    ]
    keys = [key for key in scores[0] if TABLE[key].rank < 3]
    return {key: [corpus[key] for corpus in scores] for key in keys}


def word_counts(captions: Sequence[str]) -> Counter[str]:
    """Count each word of the captions."""
    return Counter(word for caption in captions for word in tokenize(caption))


class Coverage(NamedTuple):
    """Which of the references' words a captioner uses."""

    unused: list[tuple[str, int]]  # words that no caption has and their count, most frequent first
    bands: dict[int, float]  # share of words used, of those as frequent as each of BANDS begins
    words: int  # different ones in the captions
    used: float  # share of the references' words in some caption, each counted as often as it is
    known: float  # the same of those in the vocabulary


def word_coverage(
    captions: Sequence[str], references: Sequence[Sequence[str]], vocabulary: set[str]
) -> Coverage:
    """Compare the words of the captions, and of the vocabulary, with those of the references."""
    counts = word_counts([reference for of_image in references for reference in of_image])
    used = set(word_counts(captions))
    bands = {}
    for low, high in pairwise([*BANDS, math.inf]):
        words = [word for word, count in counts.items() if low <= count < high]
        if words:
            bands[low] = len(used.intersection(words)) / len(words)
    return Coverage(
        [(word, count) for word, count in counts.most_common() if word not in used],
        bands,
        len(used),
        sum(counts[word] for word in used) / counts.total(),
        sum(counts[word] for word in vocabulary) / counts.total(),
    )


def nearest_captions(
    captions: Sequence[str], training: Sequence[str], count: int = 3
) -> list[list[tuple[str, float]]]:
    """Return the `count` nearest training captions of each caption, and their cosines, 0 to 1.

    The cosine of TF-IDF vectors of words and pairs of words. Equal training captions are one.
    """
    texts = list({tuple(tokenize(text)): text for text in training}.values())
    terms = [count_terms(text) for text in texts]
    texts_with = Counter(term for of_text in terms for term in of_text)
    idf = {term: math.log(len(texts) / count) for term, count in texts_with.items()}
    vectors = [tfidf(of_text, idf) for of_text in terms]
    nearest = []
    for caption in captions:
        vector = tfidf(count_terms(caption), idf)
        cosines: Counter[str] = Counter()
        for text, other in zip(texts, vectors, strict=True):
            if shared := vector.keys() & other.keys():
                cosines[text] = sum(vector[term] * other[term] for term in shared)
        nearest.append(cosines.most_common(count))
    return nearest


def count_terms(text: str) -> Counter:
    """Count the words and the pairs of words of a caption."""
    words = tokenize(text)
    return Counter([*words, *pairwise(words)])


def tfidf(terms: Counter, idf: dict) -> dict:
    """Return a caption's TF-IDF vector of length 1, without zeros."""
    vector = {term: count * idf[term] for term, count in terms.items() if idf.get(term)}
    norm = math.hypot(*vector.values())
    return {term: value / norm for term, value in vector.items()}


def copied_share(captions: Sequence[str], training: Sequence[str]) -> float:
    """Return the share of captions that are a training caption, word for word."""
    known = {tuple(tokenize(text)) for text in training}
    return sum(tuple(tokenize(caption)) in known for caption in captions) / len(captions)
