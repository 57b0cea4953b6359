"""Time experiment=speedrun from JPEG files to its score: `python -m benchmarks.speedrun FOLDER`.

Each seed is a process of its own in an empty folder, so encoding, training, search and scoring
count, and the start of Python. The record is added to docs/results/speedrun.json with what
changed=TEXT says; `python -m benchmarks.speedrun table` prints all. The rules: docs/speedrun.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from captioning.training.provenance import provenance

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "results" / "speedrun.json"
SEEDS, GOAL, SIGNIFICANCE = range(5), 60.0, 0.01
OPTIONS = ["experiment=speedrun", "trainer.gpus=0"]


def run_seed(data: str, seed: int) -> dict[str, Any]:
    """Train, search and score in an empty folder; return wall clock seconds and CIDEr-D x100."""
    with tempfile.TemporaryDirectory(prefix="speedrun-") as folder:
        options = [*OPTIONS, f"seed={seed}", f"data.root={Path(data).resolve()}"]
        command = [sys.executable, "-m", "captioning.train", *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        begun = time.monotonic()
        subprocess.run([*command, "hydra.run.dir=run"], cwd=folder, env=environment, check=True)
        seconds = time.monotonic() - begun
        run = json.loads(Path(folder, "run", "run.json").read_text(encoding="utf-8"))
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "seconds_of_fit": run["seconds"],
        "cider": 100 * run["metrics"]["val/cider"],
        "commit": run["commit"],
        "dirty": run["dirty"],
    }


def p_of_goal(scores: list[float]) -> float:
    """Return the p-value of a one-sided t-test that the mean is above the goal."""
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(scores, GOAL, alternative="greater").pvalue)


def make_record(data: str, changed: str) -> dict[str, Any]:
    """Run all seeds; return the record, whether it counts or not."""
    origin = provenance(torch.device("cpu"))
    origin["command"] = "python -m benchmarks.speedrun FOLDER"
    runs = [run_seed(data, seed) for seed in SEEDS]
    p = p_of_goal([run["cider"] for run in runs])
    return origin | {"changed": changed, "p": p, "counts": p < SIGNIFICANCE, "runs": runs}


def format_table(records: list[dict[str, Any]]) -> str:
    """Return the records as Markdown: medians of seconds, means of scores."""
    if not records:
        return "No record yet."
    lines = [
        "| date | commit | seconds | CIDEr-D | p | hardware | what changed |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        seconds, scores = ([run[key] for run in record["runs"]] for key in ("seconds", "cider"))
        half = (max(seconds) - min(seconds)) / 2
        lines.append(
            f"| {record['started'][:10]} | {str(record['commit'])[:7]} "
            f"| {statistics.median(seconds):.0f} ± {half:.0f} "
            f"| {statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f} "
            f"| {record['p']:.1g} | {record['hardware']['device']}, "
            f"{record['hardware']['torch_threads']} threads | {record['changed']} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Add a record, or print the table; returns the exit code, 1 for a mean that is not enough."""
    records = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    if arguments == ["table"]:
        print(format_table(records))
        return 0
    if len(arguments) != 2 or not arguments[1].startswith("changed="):
        print(__doc__)
        return 2
    record = make_record(arguments[0], arguments[1].partition("=")[2])
    if record["counts"]:
        FILE.write_text(json.dumps([*records, record], indent=1) + "\n", encoding="utf-8")
    print(format_table([record]))
    return 0 if record["counts"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
