"""Fold runs into one table and one page: `python -m captioning.summarize outputs/sweeps/NAME`.

Finished runs enter; runs that differ in nothing but their seed become one row of means and
spreads, the best first. Markdown is printed; summary.csv, summary.md and summary.html, with the
curves and what mattered, are written into the folder.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning import UserError
from captioning.config.cli import command, option
from captioning.sweeps.runs import read_runs
from captioning.sweeps.summary import write_summary
from captioning.sweeps.tables import make_rows, markdown
from captioning.web.sweep_page import write_sweep_page


@dataclass
class SummarizeOptions:
    """Fold finished runs into one table and one page.

    python -m captioning.summarize outputs/sweeps/capacity
    python -m captioning.summarize outputs/sweeps/best outputs/sweeps/ablation out=rows.json
    """

    folders: tuple[str, ...] = option(
        "a sweep, a run, or a folder above; of several only the table is printed",
        bare=True,
    )
    out: str = option("also write the rows as JSON, to this file", "")


@command(SummarizeOptions)
def main(options: SummarizeOptions) -> None:
    """Print the table; write summary files and page into the folder, if it is one."""
    folders = [Path(folder) for folder in options.folders]
    rows = summarize(folders)
    print(markdown(rows))
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if len(folders) == 1:
        write_summary(folders[0])
        write_sweep_page(folders[0])
        print(f"\npage: {folders[0] / 'summary.html'}")


def summarize(folders: list[Path]) -> list[dict[str, Any]]:
    """Return one row for each config, seeds folded, the best score first.

    Scores are those of each run's best checkpoint on the validation split. Raises UserError where
    no finished run is found.
    """
    runs = read_runs(folders)
    for run in runs:
        if run.status != "finished":
            print(f"left out: {run.folder} ({run.status})", file=sys.stderr)
    rows = make_rows(runs)
    if not rows:
        raise UserError(f"no finished run under {', '.join(map(str, folders))}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
