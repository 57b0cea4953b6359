"""Several decoders as one: features and a word enter, the mean of their probabilities leaves.

It keeps the contract of a decoder (see lstm.py), so every search works on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Ensemble(nn.Module):
    """Averages next-word probabilities, not logits: a member that is sure outvotes unsure ones.

    The members read the same features and share one vocabulary; whoever makes the ensemble sees
    to that. The state is that of the first member, then of the second, and so on.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self._parts: list[int] = []

    def begin(self, features: Float[Tensor, "batch *region feature"]) -> State:
        """Return the members' states before the first word, one after the other."""
        states = [member.begin(features) for member in self.members]
        self._parts = [len(state) for state in states]  # each model's own, whatever the picture
        return tuple(part for state in states for part in state)

    def repeat(self, state: State, times: int) -> State:
        """Return the state of `times` sentences an image, each member's in its own way."""
        states = [member.repeat(own, times) for member, own in self._states(state)]
        return tuple(part for own in states for part in own)

    def step(
        self, tokens: Int[Tensor, " batch"], state: State
    ) -> tuple[Float[Tensor, "batch vocabulary"], State]:
        """Read one word a row; return the logs of the next one's probabilities, and the state."""
        steps = [member.step(tokens, own) for member, own in self._states(state)]
        return (
            _mean_probability([logits for logits, _ in steps]),
            tuple(part for _, own in steps for part in own),
        )

    def forward(
        self, features: Float[Tensor, "batch *region feature"], tokens: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Teacher forcing: what `step` returns after each of the tokens, all at once."""
        return _mean_probability([member(features, tokens) for member in self.members])

    def _states(self, state: State) -> Iterator[tuple[nn.Module, State]]:
        """Yield each member with its part of the state."""
        parts = iter(state)
        for member, number in zip(self.members, self._parts, strict=True):
            yield member, tuple(islice(parts, number))


def _mean_probability(logits: list[Tensor]) -> Tensor:
    probabilities = torch.stack([one.float().log_softmax(-1) for one in logits])
    return probabilities.logsumexp(0) - math.log(len(logits))
