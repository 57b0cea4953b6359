"""CIDEr-D of many captions at once, for training: words' ids in, a number a caption out.

cider.py reads strings one by one; here a picture's training captions are turned into sorted arrays
once, and thousands of captions are looked up in them within a tenth of a second. Next: callbacks/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from captioning.data.vocabulary import PAD
from captioning.metrics.cider import SIGMA
from captioning.metrics.ngrams import MAX_NGRAM

# Odd numbers with well-mixed bits: products of them tell runs of words apart.
MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], dtype=np.uint64)


class _Order(NamedTuple):
    """The references' runs of n words: sorted names, their rarity, and where each is."""

    names: np.ndarray
    rarity: np.ndarray
    places: np.ndarray  # run * references + reference, sorted
    weights: np.ndarray  # of each place
    norms: np.ndarray  # of each reference


class CiderReward:
    """CIDEr-D, 0 to 10, of captions against the references of their picture.

    Both are words' ids with `<eos>` at the end, which counts as a word: else a caption could stop
    anywhere for nothing (Rennie et al. 2017, arXiv 1612.00563, 3.4). A reference's rare words are
    all `<unk>`. `rows` says which picture a reference is of; words weigh what they weigh among
    these pictures.
    """

    def __init__(self, rows: Int[np.ndarray, " reference"], references: list[list[int]]):
        order = np.argsort(rows, kind="stable")
        self.rows, self.starts, counts = np.unique(
            rows[order], return_index=True, return_counts=True
        )
        self.most = counts.max()
        self.counts = counts
        self.lengths = np.array([len(references[at]) for at in order])
        tokens = np.full((len(order), self.lengths.max()), PAD)
        for row, at in zip(tokens, order, strict=True):
            row[: len(references[at])] = references[at]
        picture = np.repeat(np.arange(len(counts)), counts)
        self.orders = []
        for reference, name in _runs(tokens, self.lengths):
            reference, name, count = _counted(reference, name)
            _, once, _ = _counted(picture[reference], name)
            names, images = np.unique(once, return_counts=True)
            rarity = np.log(len(counts)) - np.log(images)
            run = np.searchsorted(names, name)
            weights = count * rarity[run]
            norms = np.sqrt(np.bincount(reference, weights**2, len(order)))
            places = run * len(order) + reference
            at = np.argsort(places)
            self.orders.append(_Order(names, rarity, places[at], weights[at], norms))

    def __call__(
        self, rows: Int[np.ndarray, " caption"], tokens: Int[np.ndarray, "caption time"]
    ) -> Float[np.ndarray, " caption"]:
        """Return the reward of each caption, `<pad>` after its `<eos>`, for the picture `rows`."""
        lengths = (tokens != PAD).sum(1)
        picture = np.searchsorted(self.rows, rows)
        # A picture with fewer references than others has some twice, which the mean leaves out.
        own = np.arange(self.most) < self.counts[picture][:, None]
        references = self.starts[picture][:, None] + np.where(own, np.arange(self.most), 0)
        total = np.zeros(references.shape)
        for caption, run, weights, norms, order in self._weighed(tokens, lengths):
            wanted = run[:, None] * len(self.lengths) + references[caption]
            at = np.minimum(np.searchsorted(order.places, wanted), len(order.places) - 1)
            theirs = np.where(order.places[at] == wanted, order.weights[at], 0.0)
            shared = np.minimum(weights[:, None], theirs) * theirs
            dots = np.stack([np.bincount(caption, one, len(tokens)) for one in shared.T], 1)
            total += _over(dots, norms[:, None] * order.norms[references])
        scores = 10 * total / MAX_NGRAM * _alike(lengths[:, None], self.lengths[references])
        return np.where(own, scores, 0).sum(1) / own.sum(1)

    def weighted_reward(
        self, tokens: Int[np.ndarray, "caption time"], shares: Float[np.ndarray, " picture"]
    ) -> Float[np.ndarray, " caption"]:
        """Return the sum of each caption's rewards for all pictures, by row, times their shares."""
        lengths, kind = np.unique((tokens != PAD).sum(1), return_inverse=True)
        worth = np.repeat(shares / self.counts, self.counts)[:, None]
        worth = worth * _alike(lengths, self.lengths[:, None])
        total = np.zeros(len(tokens))
        for caption, run, weights, norms, order in self._weighed(tokens, lengths[kind]):
            # What many captions share, such as "a", is in thousands of references: looked up once.
            (run, weights), same = np.unique([run, weights], axis=1, return_inverse=True)
            run = run.astype(int)
            first = np.searchsorted(order.places, run * len(self.lengths))
            counts = np.searchsorted(order.places, (run + 1) * len(self.lengths)) - first
            starts = np.cumsum(counts) - counts
            at = np.arange(counts.sum()) + np.repeat(first - starts, counts)
            reference, theirs = order.places[at] % len(self.lengths), order.weights[at]
            shared = np.minimum(np.repeat(weights, counts), theirs) * theirs
            shared = _over(shared, order.norms[reference])[:, None] * worth[reference]
            dots = np.add.reduceat(shared, starts)[same, kind[caption]]
            total += _over(np.bincount(caption, dots, len(tokens)), norms)
        return 10 * total / MAX_NGRAM

    def _weighed(
        self, tokens: np.ndarray, lengths: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, _Order]]:
        """Yield, for n of 1 to 4, each run that a caption shares with any reference.

        That is its caption, its place among the names, its weight, and the captions' norms.
        """
        for (caption, name), order in zip(_runs(tokens, lengths), self.orders, strict=False):
            if not len(order.names):  # no reference is so long
                continue
            caption, name, count = _counted(caption, name)
            run = np.minimum(np.searchsorted(order.names, name), len(order.names) - 1)
            known = order.names[run] == name
            weights = count * np.where(known, order.rarity[run], np.log(len(self.rows)))
            norms = np.sqrt(np.bincount(caption, weights**2, len(tokens)))
            if known.any():
                yield caption[known], run[known], weights[known], norms, order


def _alike(length: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return CIDEr-D's penalty of two lengths that differ."""
    return np.exp(-((length - reference) ** 2) / (2 * SIGMA**2))


def _over(dots: np.ndarray, norms: np.ndarray) -> np.ndarray:
    return np.divide(dots, norms, out=np.zeros(dots.shape), where=norms > 0)


def _runs(tokens: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for n of 1 to 4, the row and the 64-bit name of each run of n words."""
    names = np.zeros(tokens.shape, dtype=np.uint64)
    words = (tokens.astype(np.uint64) + np.uint64(1)) * MIX[1]
    for n in range(min(MAX_NGRAM, tokens.shape[1])):
        width = tokens.shape[1] - n
        names = names[:, :width] * MIX[0] + words[:, n:]
        names ^= names >> np.uint64(31)
        row, at = np.nonzero(np.arange(width) < lengths[:, None] - n)
        yield row, names[row, at]


def _counted(row: np.ndarray, name: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each pair of row and name once, and how often it was there."""
    order = np.lexsort((name, row))
    row, name = row[order], name[order]
    new = np.ones(len(row), dtype=bool)
    new[1:] = (row[1:] != row[:-1]) | (name[1:] != name[:-1])
    first = np.flatnonzero(new)
    return row[first], name[first], np.diff(np.append(first, len(row)))
