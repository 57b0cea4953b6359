"""Several decoders as one, for any search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning.models.decoder import Decoder, Features, Logits, State, Tokens


class Ensemble(Decoder):
    """Averages the members' next-word probabilities, not their logits.

    The members take the same features and have one vocabulary; their states are concatenated. There
    is no `decode`: members share no hidden state.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self._state_sizes: list[int] = []

    def begin(self, features: Features) -> State:
        """Return the members' states before the first word."""
        states = [member.begin(features) for member in self.members]
        self._state_sizes = [len(state) for state in states]  # the same for every image
        return tuple(chain.from_iterable(states))

    def repeat(self, state: State, times: int) -> State:
        """Repeat each member's state for `times` hypotheses per image."""
        states = [member.repeat(own, times) for member, own in self._split(state)]
        return tuple(chain.from_iterable(states))

    def step(
        self, tokens: Int[Tensor, " batch"], state: State
    ) -> tuple[Float[Tensor, "batch vocabulary"], State]:
        """Decode one token a row; return the log-probabilities of the next one and the state."""
        steps = [member.step(tokens, own) for member, own in self._split(state)]
        logits, states = zip(*steps, strict=True)
        return _mean_log_probs(logits), tuple(chain.from_iterable(states))

    def forward(self, features: Features, tokens: Tokens) -> Logits:
        """Return the log-probabilities after each token at once (teacher forcing)."""
        return _mean_log_probs([member(features, tokens) for member in self.members])

    def _split(self, state: State) -> Iterator[tuple[nn.Module, State]]:
        """Yield each member with its part of the state."""
        parts = iter(state)
        for member, size in zip(self.members, self._state_sizes, strict=True):
            yield member, tuple(islice(parts, size))


def _mean_log_probs(logits: Sequence[Tensor]) -> Tensor:
    log_probs = torch.stack([member.float().log_softmax(-1) for member in logits])
    return log_probs.logsumexp(0) - math.log(len(logits))
