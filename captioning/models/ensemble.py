"""Several decoders as one: features and a word enter, the mean of their probabilities leaves.

It keeps the contract of a decoder (see lstm.py), so every search works on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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

    def step(
        self, tokens: Int[Tensor, " batch"], state: State
    ) -> tuple[Float[Tensor, "batch vocabulary"], State]:
        """Read one word a row; return the logs of the next one's probabilities, and the state."""
        logits, after, start = [], [], 0
        for member, parts in zip(self.members, self._parts, strict=True):
            said, own = member.step(tokens, state[start : start + parts])
            logits.append(said)
            after += own
            start += parts
        return _mean_probability(logits), tuple(after)

    def forward(
        self, features: Float[Tensor, "batch *region feature"], tokens: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Teacher forcing: what `step` returns after each of the tokens, all at once."""
        return _mean_probability([member(features, tokens) for member in self.members])


def _mean_probability(logits: list[Tensor]) -> Tensor:
    probabilities = torch.stack([one.float().log_softmax(-1) for one in logits])
    return probabilities.logsumexp(0) - math.log(len(logits))
