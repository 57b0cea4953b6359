"""How much each setting moved a score: runs enter, shares of the score's variance leave.

The method is a one-way analysis of variance, a setting at a time: η² (eta squared, Fisher 1925) is
the share of the variance between runs that lies between the setting's values. In a full grid the
shares of all settings, of their interactions and of the seeds add up to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from captioning.sweeps.runs import Run

FEWEST = 4  # runs
LEVELS = 5  # a number with more values is cut into
PARTS = 4  # groups of equally many runs


class Effect(NamedTuple):
    """The `share` of a score's variance that goes with a setting; `by_chance` even if none does."""

    key: str
    share: float
    by_chance: float | None  # the seeds': None


def importance(groups: Sequence[Sequence[Run]], keys: Sequence[str], score: str) -> list[Effect]:
    """Return the effect of each setting, the largest first, and last that of the seeds.

    `groups` are the runs of each config, `keys` what differs between them. A setting whose values
    came once each cannot be judged and is left out; of too few runs, or where all score the same,
    the list is empty.
    """
    runs = [(number, run) for number, group in enumerate(groups) for run in group]
    scores = np.array([run.scores.get(score, np.nan) for _, run in runs], dtype=float)
    if len(runs) < FEWEST or not np.ptp(scores) > 0:  # nan where a run lacks the score
        return []
    effects = []
    for key in keys:
        effect = effect_of(key, levels([run.setting(key) for _, run in runs]), scores)
        if effect:
            effects.append(effect)
    effects.sort(key=lambda effect: -effect.share)
    configs = np.array([number for number, _ in runs])
    between = effect_of("seed", configs, scores)
    if between:
        effects.append(Effect("seed", 1 - between.share, None))
    return effects


def levels(values: Sequence[object]) -> np.ndarray:
    """Return which of its values each run has; numbers with more than `LEVELS` are grouped."""
    if len(set(map(repr, values))) > LEVELS and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    ):
        return np.searchsorted(np.quantile(values, np.arange(1, PARTS) / PARTS), values)
    return np.unique([repr(value) for value in values], return_inverse=True)[1]


def effect_of(key: str, level: np.ndarray, scores: np.ndarray) -> Effect | None:
    """Return the effect of one setting, given which level of it each run has.

    None where it has one level, or one for each run.
    """
    order = np.argsort(level, kind="stable")
    cuts = [0, *(np.flatnonzero(np.diff(level[order])) + 1), len(scores)]
    parts = [scores[order][start:end] for start, end in pairwise(cuts)]
    if len(parts) in (1, len(scores)):
        return None
    between = sum(len(part) * (part.mean() - scores.mean()) ** 2 for part in parts)
    share = between / ((scores - scores.mean()) ** 2).sum()
    return Effect(key, float(share), (len(parts) - 1) / (len(scores) - 1))
