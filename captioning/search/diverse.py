"""Diverse beam search: the one step in which it differs from beam search.

Vijayakumar et al. 2016, "Diverse Beam Search", arXiv 1610.02424: the beam is split into groups,
and each group avoids the words that the groups before it chose. Next: beam.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning.data.vocabulary import PAD


class Step(NamedTuple):
    """The extensions that each beam keeps."""

    total: Float[Tensor, "batch beam"]  # what they were chosen by
    parent: Int[Tensor, "batch beam"]  # the beam that is extended
    word: Int[Tensor, "batch beam"]
    penalty: Float[Tensor, "batch beam"]  # what diversity took from the total in this step


def best_of_groups(
    candidates: Float[Tensor, "batch beam vocabulary"], groups: int, diversity: float
) -> Step:
    """Return the best extensions of each group's beams, group after group.

    Hamming diversity: a word loses `diversity` nats for each beam of an earlier group that took it
    in this step. One group is plain beam search.
    """
    batch, width, vocabulary = candidates.shape
    size = width // groups
    taken = candidates.new_zeros(batch, vocabulary)
    steps = []
    for first in range(0, width, size):
        group = candidates[:, first : first + size]
        if first:
            group = group - diversity * taken[:, None]
        total, best = group.flatten(1).topk(size)
        word = best % vocabulary
        steps.append(
            Step(total, first + best // vocabulary, word, diversity * taken.gather(1, word))
        )
        # A sentence that has ended takes no word, nor does a beam that is not alive.
        takes = (word != PAD) & ~total.isneginf()
        taken = taken.scatter_add(1, word, takes.to(taken.dtype))
    return Step(*(torch.cat(parts, 1) for parts in zip(*steps, strict=True)))
