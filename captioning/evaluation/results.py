"""Scores enter; the rows that people quote leave: plain types for scores.json, and Markdown.

Every score has a 95 % interval, every two systems a paired difference (see metrics/bootstrap.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from captioning import UserError
from captioning.evaluation.intervals import interval, p_value
from captioning.evaluation.scoring import Measured, Scorer, System
from captioning.metrics.score_table import TABLE


def results(scorer: Scorer, systems: Sequence[System], people: Measured | None) -> dict[str, Any]:
    """Return all scores, their intervals and the differences between systems, as plain types.

    A row is against all references, or (`held_out`) against all but one, as people are.
    """
    fewest, most = scorer.fewest, scorer.most
    rows = [
        row(system.label, fewest, most, system.scores) | {"held_out": False} for system in systems
    ]
    if people:
        held_out = [(system.label, system.held_out) for system in systems] + [("people", people)]
        rows += [
            row(label, fewest - 1, most - 1, measured) | {"held_out": True}
            for label, measured in held_out
        ]
    differences = [difference(first, second) for first, second in combinations(systems, 2)]
    return {"rows": rows, "differences": differences}


def row(label: str, fewest: int, most: int, measured: Measured) -> dict[str, Any]:
    """Return the scores of one system against that many references."""
    if wrong := [key for key, value in measured.corpus.items() if not math.isfinite(value)]:
        raise UserError(f"{label}: {wrong[0]} is {measured.corpus[wrong[0]]}, which is no score")
    return {
        "system": label,
        "references": f"{fewest}" if fewest == most else f"{fewest}–{most}",
        "scores": {key: float(value) for key, value in measured.corpus.items()},
        "intervals": {key: interval(sampled) for key, sampled in measured.sampled.items()},
    }


def difference(first: System, second: System) -> dict[str, Any]:
    """Return, for each score, how much better the first system is, and whether that is noise."""
    scores = {}
    for key, sampled in first.scores.sampled.items():
        differences = sampled - second.scores.sampled[key]
        scores[key] = {
            "difference": first.scores.corpus[key] - second.scores.corpus[key],
            "interval": interval(differences),
            "p": p_value(differences),
        }
    return {"first": first.label, "second": second.label, "scores": scores}


def markdown(measured: dict[str, Any]) -> str:
    """Return `results` as tables: scores x100, ± half the interval; differences with theirs."""
    keys = shown_keys(measured["rows"][0])
    lines = _table(["captions", "references", *(TABLE[key].title for key in keys)])
    for one in measured["rows"]:
        cells = [
            f"{TABLE[key].factor * one['scores'][key]:.1f} ± {half_width(one, key):.1f}"
            if key in one["scores"]
            else ""
            for key in keys
        ]
        lines.append(f"| {one['system']} | {one['references']} | {' | '.join(cells)} |")
    keys = [key for key in keys if TABLE[key].rank < 3]
    if measured["differences"]:
        lines += ["", *_table(["difference", *(TABLE[key].title for key in keys)])]
    for one in measured["differences"]:
        cells = []
        for key in keys:
            found, factor = one["scores"][key], TABLE[key].factor
            low, high = found["interval"]
            bounds = f"[{factor * low:+.1f}, {factor * high:+.1f}]"
            cells.append(f"{factor * found['difference']:+.1f} {bounds} {p_text(found['p'])}")
        lines.append(f"| {one['first']} − {one['second']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown_keys(row: dict[str, Any]) -> list[str]:
    """Return the scores that have a column: those with an interval, in the table's order."""
    return [key for key in TABLE if key in row["intervals"]]


def half_width(row: dict[str, Any], key: str) -> float:
    """Return half a score's interval, as it is shown."""
    low, high = row["intervals"][key]
    return TABLE[key].factor * (high - low) / 2


def p_text(p: float) -> str:
    """Return a p-value as papers print it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _table(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
