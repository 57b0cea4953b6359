"""How much of the variance of a sweep's scores goes with each setting.

A one-way analysis of variance, a setting at a time: η² (eta squared, Fisher 1925) is the share of
the variance between runs that lies between the setting's values. In a full grid the shares of
settings, interactions and seeds add up to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from captioning.sweeps.runs import Run

MIN_RUNS = 4
MAX_LEVELS = 5  # a number with more values is cut into quartiles


class Effect(NamedTuple):
    """A setting's share of the variance, and what a setting without effect has on average."""

    key: str
    share: float
    by_chance: float | None  # None for the seeds


def importance(groups: Sequence[Sequence[Run]], keys: Sequence[str], score: str) -> list[Effect]:
    """Return the effect of each setting in `keys`, the largest first, and last that of the seeds.

    `groups` are the runs of each config. Empty for fewer than `MIN_RUNS` runs and where all score
    the same; without settings of which each value came once.
    """
    runs = [run for group in groups for run in group]
    scores = np.array([run.scores.get(score, np.nan) for run in runs], dtype=float)
    if len(runs) < MIN_RUNS or not np.ptp(scores) > 0:  # nan where a run lacks the score
        return []
    effects = [
        effect
        for key in keys
        if (effect := measure_effect(key, levels([run.setting(key) for run in runs]), scores))
    ]
    effects.sort(key=lambda effect: -effect.share)
    configs = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    between = measure_effect("seed", configs, scores)
    return [*effects, Effect("seed", 1 - between.share, None)] if between else effects


def levels(values: Sequence[object]) -> np.ndarray:
    """Number the values; numbers with more than `MAX_LEVELS` different values by quartile."""
    if all(isinstance(value, int | float) for value in values) and len(set(values)) > MAX_LEVELS:
        return np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values)
    return np.unique([repr(value) for value in values], return_inverse=True)[1]


def measure_effect(key: str, level: np.ndarray, scores: np.ndarray) -> Effect | None:
    """Return a setting's effect from each run's level; None for one level, or one for each run."""
    _, level, counts = np.unique(level, return_inverse=True, return_counts=True)
    if len(counts) in (1, len(scores)):
        return None
    means = np.bincount(level, scores) / counts
    between = counts @ (means - scores.mean()) ** 2
    share = between / ((scores - scores.mean()) ** 2).sum()
    return Effect(key, float(share), (len(counts) - 1) / (len(scores) - 1))
