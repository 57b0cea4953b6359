"""The rows of scores.json with 95 % intervals and paired differences, and their Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from captioning import UserError
from captioning.evaluation.intervals import interval, p_value
from captioning.evaluation.scoring import BootstrapScores, Scorer, System
from captioning.metrics.score_table import TABLE


def make_results(
    scorer: Scorer, systems: Sequence[System], human: BootstrapScores | None
) -> dict[str, Any]:
    """Return all scores, their intervals and the differences between systems, as plain types.

    A row is against all references or, with `held_out`, against all but one, as humans are.
    """
    measured = [(system.label, system.scores, 0) for system in systems]
    if human:
        measured += [(system.label, system.held_out, 1) for system in systems]
        measured.append(("human", human, 1))
    rows = []
    for label, scores, left_out in measured:
        fewest, most = scorer.fewest - left_out, scorer.most - left_out
        rows.append(score_row(label, fewest, most, scores) | {"held_out": bool(left_out)})
    pairs = combinations(systems, 2)
    return {"rows": rows, "differences": [paired_difference(*pair) for pair in pairs]}


def score_row(label: str, fewest: int, most: int, scores: BootstrapScores) -> dict[str, Any]:
    """Return the scores of one system against `fewest` to `most` references per image."""
    for key, value in scores.corpus.items():
        if not math.isfinite(value):
            raise UserError(f"{label}: {key} is {value}, which is no score")
    return {
        "system": label,
        "references": f"{fewest}" if fewest == most else f"{fewest}–{most}",
        "scores": {key: float(value) for key, value in scores.corpus.items()},
        "intervals": {key: interval(sampled) for key, sampled in scores.sampled.items()},
    }


def paired_difference(first: System, second: System) -> dict[str, Any]:
    """Return by how much the first system is better in each score, with interval and p-value."""
    scores = {}
    for key, sampled in first.scores.sampled.items():
        differences = sampled - second.scores.sampled[key]
        scores[key] = {
            "difference": first.scores.corpus[key] - second.scores.corpus[key],
            "interval": interval(differences),
            "p": p_value(differences),
        }
    return {"first": first.label, "second": second.label, "scores": scores}


def format_results(results: dict[str, Any]) -> str:
    """Return the rows of `make_results` as Markdown: scores x100, ± half the interval."""
    keys = shown_keys(results["rows"][0])
    rows = []
    for row in results["rows"]:
        values = {
            key: f"{TABLE[key].factor * row['scores'][key]:.1f} ± {half_width(row, key):.1f}"
            for key in keys
            if key in row["scores"]
        }
        rows.append([row["system"], row["references"], *(values.get(key, "") for key in keys)])
    titles = [TABLE[key].title for key in keys]
    table = markdown_table(["captions", "references", *titles], rows)
    if not results["differences"]:
        return table
    keys = [key for key in keys if TABLE[key].rank < 3]
    rows = [
        [f"{pair['first']} − {pair['second']}"]
        + [format_difference(pair["scores"][key], TABLE[key].factor) for key in keys]
        for pair in results["differences"]
    ]
    titles = [TABLE[key].title for key in keys]
    return f"{table}\n\n{markdown_table(['difference', *titles], rows)}"


def format_difference(score: dict[str, Any], factor: int) -> str:
    """Return a difference times `factor`, with its interval and p-value."""
    low, high = (factor * bound for bound in score["interval"])
    p = format_p(score["p"])
    return f"{factor * score['difference']:+.1f} [{low:+.1f}, {high:+.1f}] {p}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table without a newline at its end."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def shown_keys(row: dict[str, Any]) -> list[str]:
    """Return the scores that have a column: those with an interval, in the table's order."""
    return [key for key in TABLE if key in row["intervals"]]


def half_width(row: dict[str, Any], key: str) -> float:
    """Return half a score's interval, as it is shown."""
    low, high = row["intervals"][key]
    return TABLE[key].factor * (high - low) / 2


def format_p(p: float) -> str:
    """Return a p-value as papers print it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
