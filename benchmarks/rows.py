"""What a benchmark row is, and how its two sides are timed: turn by turn, in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

LESS_IS_BETTER = ("s", "ms", "MB")
PRODUCTS, SIDE = 5, 2048  # matrix products in one call of `matrix_peak`, and their size


@dataclass
class Row:
    """The same thing done by `ours` and by a baseline (`ordinary`), several times each, in `unit`.

    `limit` is what the machine allows, in the same unit.
    """

    name: str
    unit: str
    ours: list[float]
    ordinary: list[float]
    way: str  # what the baseline is
    limit: float | None = None
    notes: dict[str, float | str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times better ours is, by the medians."""
        ours, ordinary = statistics.median(self.ours), statistics.median(self.ordinary)
        return ordinary / ours if self.unit in LESS_IS_BETTER else ours / ordinary

    def described(self) -> dict[str, Any]:
        """Return the row as a file holds it."""
        return asdict(self) | {"ratio": self.ratio, "of_limit": self.of_limit}

    @property
    def of_limit(self) -> float | None:
        """The share of the machine's limit that ours reaches."""
        return statistics.median(self.ours) / self.limit if self.limit else None


def seconds(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time the calls one after the other, `repeats` times over.

    Where that is more than once, each is called before, to warm up.
    """
    for call in calls.values() if repeats > 1 else ():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            found[name].append(seconds(call))
    return found


def matrix_peak(side: int = SIDE, **options: Any) -> Callable[[], object]:
    """Return a call of `PRODUCTS` matrix products, by default in float32: the machine's limit."""
    left, right = torch.randn(2, side, side, **options)

    def multiply() -> None:
        for _ in range(PRODUCTS):
            left @ right

    return multiply


def peak_of(took: list[float], side: int = SIDE) -> float:
    """Return the operations a second of `matrix_peak`'s calls, by their median."""
    return PRODUCTS * 2 * side**3 / statistics.median(took)
