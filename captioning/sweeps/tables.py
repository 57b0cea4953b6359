"""Runs enter; the table's rows leave, one a config, seeds folded, best first. Next: summary.py."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from captioning import UserError
from captioning.metrics.score_table import BERT, TABLE, factor_of, mode_of
from captioning.sweeps.runs import Run, differing, finished

MANY = 4  # settings that differ; more do not get a column each


def make_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each config of the finished runs, the best first."""
    keys = differing(runs)
    return [fold(group, keys) for group in best_first(runs)]


def best_first(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the finished runs of each config, that with the best mean first.

    The best is by what the runs monitored; where that differs, by CIDEr-D. A config that was run
    twice with one seed counts once, the first by folder.
    """
    groups: dict[str, dict[int, Run]] = {}
    for run in finished(runs):
        groups.setdefault(run.experiment, {}).setdefault(run.seed, run)
    rows = [(fold(group, ()), group) for group in (list(one.values()) for one in groups.values())]
    key, sign = order([row for row, _ in rows])
    worst = {"mean": -sign * float("inf")}
    rows.sort(key=lambda pair: -sign * pair[0]["scores"].get(key, worst)["mean"])
    return [group for _, group in rows]


def order(rows: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Return the score that rows are sorted by, and 1 where more is better, else -1."""
    monitored = {row.get("monitor") or "" for row in rows}
    if len(monitored) == 1 and (monitor := monitored.pop()).startswith("val/"):
        with suppress(UserError):  # of a release with other scores
            # Not by the recorded mode, which could once contradict what was monitored.
            return monitor.removeprefix("val/"), -1 if mode_of(monitor) == "min" else 1
    return "cider", 1


def fold(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Any]:
    """Return the row of runs that differ in their seed only: means and standard deviations.

    `keys` are the settings that differ between rows.
    """
    first = runs[0].content
    scores = {}
    for key in runs[0].scores:
        values = [run.scores[key] for run in runs if run.scores.get(key) is not None]
        spread = statistics.stdev(values) if len(values) > 1 else None
        if values:
            scores[key] = {"mean": statistics.mean(values), "spread": spread}
    paces = [run.content["seconds_per_epoch"] for run in runs]
    return {
        "config": [f"{key}={value}" for key, value in runs[0].overrides.items()],
        "settings": {key: runs[0].setting(key) for key in keys},
        "seeds": sorted(run.seed for run in runs),
        "scores": scores,
        "monitor": first.get("monitor"),
        "seconds_per_epoch": statistics.median(pace for pace in paces if pace is not None)
        if any(pace is not None for pace in paces)
        else None,
        "epochs": first["epochs"],
        "trained_parameters": first["trained_parameters"],
        "encoder": first["encoder"]["name"],
        "hardware": first["hardware"],
        "versions": first["versions"],
        "commits": sorted(
            {
                str(run.content["commit"]) + ("-dirty" if run.content["dirty"] else "")
                for run in runs
            }
        ),
        "folders": [str(run.folder) for run in runs],
    }


def score_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return which scores a table shows: that of the order first, then those there are."""
    there = {key for row in rows for key in row["scores"]}
    # Of those of one BERT, which rise together, the main one alone.
    shown = [
        key
        for key, score in TABLE.items()
        if score.function and (score.rank == 1 or score.inputs != BERT)
    ]
    return [key for key in dict.fromkeys([order(rows)[0], *shown]) if key in there]


def setting_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the settings that differ between rows; none in rows that do not know them."""
    return list(dict.fromkeys(key for row in rows for key in row.get("settings", ())))


def score_text(score: dict[str, Any] | None, key: str) -> str:
    """Return mean ± standard deviation as the tables show it: shares x100."""
    if score is None:
        return ""
    factor = factor_of(key)
    digits = 3 if factor == 1 else 1
    spread = f" ± {factor * score['spread']:.{digits}f}" if score["spread"] is not None else ""
    return f"{factor * score['mean']:.{digits}f}{spread}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table; shares x100, with ± one standard deviation over seeds.

    Where many settings differ, one column has what was typed for a row and not for all.
    """
    settings, scores = setting_keys(rows), score_keys(rows)
    typed = set.intersection(*({*row["config"]} for row in rows)) if len(rows) > 1 else set()
    if len(settings) > MANY:
        settings = []
    named = settings or ["config"]
    lines = [f"| {' | '.join([*named, 'seeds', *scores, 's/epoch'])} |"]
    lines.append("|" + "---|" * (len(named) + len(scores) + 2))
    for row in rows:
        cells = [_cell(row["settings"].get(key)) for key in settings]
        if not settings:
            own = [one for one in row["config"] if one not in typed]
            cells = [f"`{' '.join(own) or 'defaults'}`"]
        cells.append(str(len(row["seeds"])))
        cells += [score_text(row["scores"].get(key), key) for key in scores]
        pace = row["seconds_per_epoch"]
        cells.append("" if pace is None else f"{pace:.0f}" if pace >= 10 else f"{pace:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", r"\|")
