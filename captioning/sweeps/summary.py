"""Write summary.csv and summary.md, the table of many runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from captioning.data.atomic import atomic_write
from captioning.sweeps.runs import read_runs
from captioning.sweeps.tables import make_rows, markdown, setting_keys


def write_summary(folder: Path) -> str:
    """Write what is known of the runs below `folder` into it; returns the table as Markdown.

    Jobs that end at the same time take turns.
    """
    with FileLock(folder / "summary.lock"):
        runs = read_runs([folder])
        rows = make_rows(runs)
        table = markdown(rows) if rows else "No job has finished yet."
        left = [run for run in runs if run.status != "finished"]
        text = table + ("\n\nNot in the table:\n" if left else "")
        for run in left:
            text += f"\n- {run.folder.relative_to(folder)}: {run.status}"
            text += f", {run.error}" if run.error else ""
        _write(folder / "summary.md", text + "\n")
        _write(folder / "summary.csv", comma_separated(rows))
    return table


def comma_separated(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a CSV: what differs, then every score as it is, with its spread."""
    scores = list(dict.fromkeys(key for row in rows for key in row["scores"]))
    rest = ("epochs", "seconds_per_epoch", "trained_parameters")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spreads = [name for key in scores for name in (key, f"{key}_spread")]
    writer.writerow([*setting_keys(rows), "seeds", *spreads, *rest, "folders"])
    for row in rows:
        cells = [row["settings"].get(key) for key in setting_keys(rows)]
        cells.append(" ".join(map(str, row["seeds"])))
        for key in scores:
            score = row["scores"].get(key, {"mean": None, "spread": None})
            cells += [score["mean"], score["spread"]]
        cells += [row[key] for key in rest]
        writer.writerow([*cells, " ".join(Path(path).name for path in row["folders"])])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
