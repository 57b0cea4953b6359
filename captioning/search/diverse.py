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
    candidates: Float[Tensor, "batch beam choice"],
    words: Int[Tensor, "batch beam choice"],
    groups: int,
    diversity: float,
) -> Step:
    """Return the best extensions of each group's beams, group after group.

    The candidates are each beam's likeliest words, as many as there are beams: an earlier group
    has too few to take all that a later one needs. Hamming diversity: a word loses `diversity`
    nats for each beam of an earlier group that took it in this step. One group is plain beam
    search.
    """
    width, choices = candidates.shape[1:]
    size = width // groups
    steps: list[Step] = []
    for first in range(0, width, size):
        group = slice(first, first + size)
        lost = torch.zeros_like(candidates[:, group])
        for other in steps:
            # A sentence that has ended takes no word, nor does a beam that is not alive.
            taken = other.word.masked_fill((other.word == PAD) | other.total.isneginf(), -1)
            again = words[:, group, :, None] == taken[:, None, None]
            lost = lost + diversity * again.sum(-1)
        total, best = (candidates[:, group] - lost).flatten(1).topk(size)
        word, penalty = (part.flatten(1).gather(1, best) for part in (words[:, group], lost))
        steps.append(Step(total, first + best // choices, word, penalty))
    return Step(*(torch.cat(parts, 1) for parts in zip(*steps, strict=True)))
