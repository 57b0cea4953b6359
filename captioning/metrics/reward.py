"""CIDEr-D as a reward for training and reranking: vectorized, of captions as ids of words."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from captioning.data.vocabulary import PAD
from captioning.metrics.cider import SIGMA
from captioning.metrics.ngrams import MAX_NGRAM

# Odd numbers with well-mixed bits, whose products tell n-grams apart.
MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], dtype=np.uint64)


class _NgramIndex(NamedTuple):
    """The references' n-grams of one order."""

    hashes: np.ndarray  # of each n-gram, sorted
    idf: np.ndarray  # of each n-gram
    entries: np.ndarray  # n-gram * references + reference, sorted
    weights: np.ndarray  # of each entry
    norms: np.ndarray  # of each reference


class CiderReward:
    """CIDEr-D, 0 to 10, of captions against the references of their image.

    Both are ids of words with `<eos>` at the end, which counts as a word: else a caption could stop
    anywhere for nothing (Rennie et al. 2017, arXiv 1612.00563, 3.4). `rows` says which image a
    reference is of.
    """

    def __init__(self, rows: Int[np.ndarray, " reference"], references: list[list[int]]):
        order = np.argsort(rows, kind="stable")
        self.rows, self.starts, self.counts = np.unique(
            rows[order], return_index=True, return_counts=True
        )
        self.lengths = np.array([len(references[at]) for at in order])
        tokens = np.full((len(order), self.lengths.max()), PAD)
        for row, at in zip(tokens, order, strict=True):
            row[: len(references[at])] = references[at]
        images = np.repeat(np.arange(len(self.rows)), self.counts)
        self.indexes = []
        for reference, hashes in _hash_ngrams(tokens, self.lengths):
            reference, hashes, count = _count_pairs(reference, hashes)
            _, of_images, _ = _count_pairs(images[reference], hashes)
            vocabulary, frequency = np.unique(of_images, return_counts=True)
            idf = np.log(len(self.rows)) - np.log(frequency)
            ngram = np.searchsorted(vocabulary, hashes)
            weights = count * idf[ngram]
            norms = np.sqrt(np.bincount(reference, weights**2, len(order)))
            entries = ngram * len(order) + reference
            at = np.argsort(entries)
            self.indexes.append(_NgramIndex(vocabulary, idf, entries[at], weights[at], norms))

    def __call__(
        self, rows: Int[np.ndarray, " caption"], tokens: Int[np.ndarray, "caption time"]
    ) -> Float[np.ndarray, " caption"]:
        """Return the reward of each caption, `<pad>` after its `<eos>`, for the image `rows`."""
        lengths = (tokens != PAD).sum(1)
        image = np.searchsorted(self.rows, rows)
        # An image with fewer references than others has some twice, which the mean leaves out.
        places = np.arange(self.counts.max())
        is_own = places < self.counts[image][:, None]
        references = self.starts[image][:, None] + np.where(is_own, places, 0)
        total = np.zeros(references.shape)
        for caption, ngram, weights, norms, index in self._look_up(tokens, lengths):
            entry = ngram[:, None] * len(self.lengths) + references[caption]
            at = np.minimum(np.searchsorted(index.entries, entry), len(index.entries) - 1)
            others = np.where(index.entries[at] == entry, index.weights[at], 0.0)
            shared = np.minimum(weights[:, None], others) * others
            dots = np.stack([np.bincount(caption, x, len(tokens)) for x in shared.T], 1)
            total += safe_divide(dots, norms[:, None] * index.norms[references])
        scores = 10 * total / MAX_NGRAM * length_penalty(lengths[:, None], self.lengths[references])
        return np.where(is_own, scores, 0).sum(1) / is_own.sum(1)

    def weighted_reward(
        self, tokens: Int[np.ndarray, "caption time"], image_weights: Float[np.ndarray, " image"]
    ) -> Float[np.ndarray, " caption"]:
        """Return the sum over all images, by row, of each caption's reward times their weight."""
        lengths, kind = np.unique((tokens != PAD).sum(1), return_inverse=True)
        factors = np.repeat(image_weights / self.counts, self.counts)[:, None]
        factors = factors * length_penalty(lengths, self.lengths[:, None])
        total = np.zeros(len(tokens))
        for caption, ngram, weights, norms, index in self._look_up(tokens, lengths[kind]):
            # N-grams of many captions, such as "a", are in thousands of references: looked up once.
            (ngram, weights), same = np.unique([ngram, weights], axis=1, return_inverse=True)
            ngram = ngram.astype(int)
            first = np.searchsorted(index.entries, ngram * len(self.lengths))
            counts = np.searchsorted(index.entries, (ngram + 1) * len(self.lengths)) - first
            starts = np.cumsum(counts) - counts
            at = np.arange(counts.sum()) + np.repeat(first - starts, counts)
            reference, others = index.entries[at] % len(self.lengths), index.weights[at]
            shared = np.minimum(np.repeat(weights, counts), others) * others
            shared = safe_divide(shared, index.norms[reference])[:, None] * factors[reference]
            dots = np.add.reduceat(shared, starts)[same, kind[caption]]
            total += safe_divide(np.bincount(caption, dots, len(tokens)), norms)
        return 10 * total / MAX_NGRAM

    def _look_up(self, tokens: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """Yield, for each order, the caption, number and weight of each n-gram that a reference
        has, too, the norms of all captions, and the index."""
        ngrams = _hash_ngrams(tokens, lengths)
        for (caption, hashes), index in zip(ngrams, self.indexes, strict=False):
            if not len(index.hashes):  # no reference is so long
                continue
            caption, hashes, count = _count_pairs(caption, hashes)
            ngram = np.minimum(np.searchsorted(index.hashes, hashes), len(index.hashes) - 1)
            known = index.hashes[ngram] == hashes
            weights = count * np.where(known, index.idf[ngram], np.log(len(self.rows)))
            norms = np.sqrt(np.bincount(caption, weights**2, len(tokens)))
            if known.any():
                yield caption[known], ngram[known], weights[known], norms, index


def length_penalty(lengths: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return CIDEr-D's factor for a caption and a reference whose lengths differ."""
    return np.exp(-((lengths - references) ** 2) / (2 * SIGMA**2))


def safe_divide(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Divide; 0 where the denominator is."""
    return np.divide(numerators, denominators, np.zeros(numerators.shape), where=denominators > 0)


def _hash_ngrams(tokens: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield, for n of 1 to 4, the row and the 64-bit hash of each n-gram."""
    hashes = np.zeros(tokens.shape, dtype=np.uint64)
    words = (tokens.astype(np.uint64) + np.uint64(1)) * MIX[1]
    for n in range(min(MAX_NGRAM, tokens.shape[1])):
        width = tokens.shape[1] - n
        hashes = hashes[:, :width] * MIX[0] + words[:, n:]
        hashes ^= hashes >> np.uint64(31)
        row, at = np.nonzero(np.arange(width) < lengths[:, None] - n)
        yield row, hashes[row, at]


def _count_pairs(row: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return each pair of row and hash once, and how often it occurs."""
    order = np.lexsort((hashes, row))
    row, hashes = row[order], hashes[order]
    is_new = np.ones(len(row), dtype=bool)
    is_new[1:] = (row[1:] != row[:-1]) | (hashes[1:] != hashes[:-1])
    first = np.flatnonzero(is_new)
    return row[first], hashes[first], np.diff(np.append(first, len(row)))
