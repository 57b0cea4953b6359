"""Fold runs into one table and one page: `python -m captioning.summarize outputs/sweeps/NAME`.

Runs that differ in their seed only become one row of means and standard deviations.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from captioning import UserError
from captioning.config.cli import command, option
from captioning.sweeps.runs import read_runs
from captioning.sweeps.summary import format_rows, make_rows, write_summary
from captioning.web.sweep_page import write_sweep_page


@dataclass
class SummarizeOptions:
    """Fold finished runs into one table and one page.

    python -m captioning.summarize outputs/sweeps/capacity
    python -m captioning.summarize outputs/sweeps/best outputs/sweeps/ablation out=rows.json
    """

    folders: tuple[str, ...] = option(
        "a sweep, latest, a run, or a folder above; of several only the table is printed", bare=True
    )
    out: str = option("also write the rows as JSON, to this file", "")


@command(SummarizeOptions)
def main(options: SummarizeOptions) -> None:
    """Print the table; write summary files and page into the folder, if it is one."""
    folders = [Path(folder) for folder in options.folders]
    runs = read_runs(folders)
    for run in runs:
        if run.status != "finished":
            print(f"left out: {run.folder} ({run.status})", file=sys.stderr)
    rows = make_rows(runs)
    if not rows:
        raise UserError(f"no finished run under {', '.join(options.folders)}")
    print(format_rows(rows))
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if len(folders) == 1:
        write_summary(folders[0])
        write_sweep_page(folders[0])
        print(f"\npage: {folders[0] / 'summary.html'}")


if __name__ == "__main__":
    sys.exit(main())
