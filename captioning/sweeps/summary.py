"""Fold the runs of a sweep over seeds into summary.csv and summary.md, a row for each config.

Rows are dicts of plain types, as `captioning.summarize out=` writes them.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from captioning import UserError
from captioning.data.atomic import atomic_write_text
from captioning.evaluation.results import markdown_table
from captioning.metrics.score_table import BERT, TABLE, factor_of, mode_of
from captioning.sweeps.runs import Run, differing_keys, finished_runs, read_runs

MAX_COLUMNS = 4  # of settings; where more differ, one column holds what was typed


def write_summary(folder: Path) -> str:
    """Write summary.csv and summary.md of the runs below `folder`; return the Markdown table."""
    with FileLock(folder / "summary.lock"):  # jobs may end at the same time
        runs = read_runs([folder])
        rows = make_rows(runs)
        table = format_rows(rows) if rows else "No job has finished yet."
        missing = [run for run in runs if run.status != "finished"]
        text = table + ("\n\nNot in the table:\n\n" if missing else "\n")
        for run in missing:
            reason = f", {run.error}" if run.error else ""
            text += f"- {run.folder.relative_to(folder)}: {run.status}{reason}\n"
        atomic_write_text(folder / "summary.md", text)
        atomic_write_text(folder / "summary.csv", format_csv(rows))
    return table


def make_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each config of the finished runs, the best mean score first.

    A seed that a config was run with twice counts once, the first by folder.
    """
    groups: dict[str, dict[int, Run]] = {}
    for run in finished_runs(runs):
        groups.setdefault(run.config_id, {}).setdefault(run.seed, run)
    keys = differing_keys(runs)
    rows = [fold_seeds(list(group.values()), keys) for group in groups.values()]
    key, sign = ranking_score(rows)
    worst = {"mean": -sign * math.inf}
    return sorted(rows, key=lambda row: -sign * row["scores"].get(key, worst)["mean"])


def rank_configs(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs of each row, in the order of the rows."""
    by_folder = {str(run.folder): run for run in runs}
    return [[by_folder[folder] for folder in row["folders"]] for row in make_rows(runs)]


def ranking_score(rows: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Return the score that all runs monitored, or else CIDEr-D, by which rows are sorted, and 1
    where more is better, else -1."""
    monitored = {row.get("monitor") or "" for row in rows}
    if len(monitored) == 1 and (monitor := monitored.pop()).startswith("val/"):
        with suppress(UserError):  # a score of another release
            # Not by the recorded mode, which older releases could get wrong.
            return monitor.removeprefix("val/"), -1 if mode_of(monitor) == "min" else 1
    return "cider", 1


def fold_seeds(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Any]:
    """Return the row of one config over its runs; `keys` are the settings that differ in rows."""
    first = runs[0].content
    scores = {}
    for key in runs[0].scores:
        values = [run.scores[key] for run in runs if run.scores.get(key) is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            scores[key] = {"mean": statistics.mean(values), "spread": spread}
    paces = [run.content["seconds_per_epoch"] for run in runs]
    paces = [pace for pace in paces if pace is not None]
    commits = {f"{run.content['commit']}{'-dirty' if run.content['dirty'] else ''}" for run in runs}
    return {
        "config": [f"{key}={value}" for key, value in runs[0].overrides.items()],
        "settings": {key: runs[0].setting(key) for key in keys},
        "seeds": sorted(run.seed for run in runs),
        "scores": scores,
        "monitor": first.get("monitor"),
        "seconds_per_epoch": statistics.median(paces) if paces else None,
        "epochs": first["epochs"],
        "trained_parameters": first["trained_parameters"],
        "encoder": first["encoder"]["name"],
        "hardware": first["hardware"],
        "versions": first["versions"],
        "commits": sorted(commits),
        "folders": [str(run.folder) for run in runs],
    }


def setting_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the settings that differ between rows; none in rows of older releases."""
    return list(dict.fromkeys(key for row in rows for key in row.get("settings", ())))


def score_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the scores that a table shows, the one that rows are sorted by first.

    Of the scores of one BERT, which rise together, only the main one.
    """
    present = {key for row in rows for key in row["scores"]}
    shown = [
        key
        for key, score in TABLE.items()
        if score.function and (score.rank == 1 or score.inputs != BERT)
    ]
    return [key for key in dict.fromkeys([ranking_score(rows)[0], *shown]) if key in present]


def format_mean(score: dict[str, Any] | None, key: str) -> str:
    """Return mean ± standard deviation, shares x100; "" for None."""
    if score is None:
        return ""
    factor = factor_of(key)
    digits = 3 if factor == 1 else 1
    spread = f" ± {factor * score['spread']:.{digits}f}" if score["spread"] is not None else ""
    return f"{factor * score['mean']:.{digits}f}{spread}"


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table: settings, seeds, scores, seconds per epoch."""
    settings, scores = setting_keys(rows), score_keys(rows)
    if len(settings) > MAX_COLUMNS:
        settings = []
    in_all = set.intersection(*({*row["config"]} for row in rows)) if len(rows) > 1 else set()
    table = []
    for row in rows:
        values = [row["settings"].get(key) for key in settings]
        cells = ["" if value is None else str(value).replace("|", r"\|") for value in values]
        if not settings:
            typed = [override for override in row["config"] if override not in in_all]
            cells = [f"`{' '.join(typed) or 'defaults'}`"]
        cells.append(str(len(row["seeds"])))
        cells += [format_mean(row["scores"].get(key), key) for key in scores]
        pace = row["seconds_per_epoch"]
        cells.append("" if pace is None else f"{pace:.0f}" if pace >= 10 else f"{pace:.1f}")
        table.append(cells)
    return markdown_table([*(settings or ["config"]), "seeds", *scores, "s/epoch"], table)


def format_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a CSV: settings, then every score as it is, with its spread."""
    scores = dict.fromkeys(key for row in rows for key in row["scores"])
    numbers = ["epochs", "seconds_per_epoch", "trained_parameters"]
    columns = [name for key in scores for name in (key, f"{key}_spread")]
    columns = [*setting_keys(rows), "seeds", *columns, *numbers, "folders"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = row["settings"] | {key: row[key] for key in numbers}
        for key, score in row["scores"].items():
            cells |= {key: score["mean"], f"{key}_spread": score["spread"]}
        cells["seeds"] = " ".join(map(str, row["seeds"]))
        cells["folders"] = " ".join(Path(path).name for path in row["folders"])
        writer.writerow(cells)
    return text.getvalue()
