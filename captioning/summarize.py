"""Fold runs into one table: `python -m captioning.summarize RUNS... [--out results.json]`.

The run.json and config of each run enter; runs that differ in nothing but their seed become one
row of means and spreads. Markdown is printed, and JSON written where asked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from captioning.data.records import UserError

COLUMNS = ("cider", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "bert_similarity")


def main(argv: list[str] | None = None) -> int:
    """Run the verb; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m captioning.summarize", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="FOLDER", help="runs, or folders above them")
    parser.add_argument("--out", metavar="FILE", help="also write the rows as JSON")
    arguments = parser.parse_args(argv)
    try:
        rows = summarize([Path(folder) for folder in arguments.runs])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown(rows))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def summarize(folders: list[Path]) -> list[dict[str, Any]]:
    """Return one row for each config, seeds folded, the best score first.

    Scores are those of each run's best checkpoint on the validation split. Raises UserError where
    no finished run is found.
    """
    paths = sorted({path for folder in folders for path in folder.rglob("run.json")})
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        run = json.loads(path.read_text(encoding="utf-8"))
        overrides_file = path.parent / ".hydra" / "overrides.yaml"
        if run["status"] != "finished" or not overrides_file.exists():
            print(f"left out: {path.parent} ({run['status']})", file=sys.stderr)
            continue
        overrides = yaml.safe_load(overrides_file.read_text(encoding="utf-8"))
        run["config"] = sorted(one for one in overrides if not one.startswith("seed="))
        groups.setdefault(json.dumps(run["config"]), []).append(run)
    if not groups:
        raise UserError(f"no finished run under {', '.join(map(str, folders))}")
    rows = [fold(runs) for runs in groups.values()]
    return sorted(rows, key=lambda row: -row["scores"].get("cider", {"mean": 0.0})["mean"])


def fold(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of runs that differ in their seed only: means and standard deviations."""
    keys = [key for key in runs[0]["metrics"] if key.startswith("val/")]
    scores = {}
    for key in keys:
        values = [run["metrics"][key] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else None
        scores[key.removeprefix("val/")] = {"mean": statistics.mean(values), "spread": spread}
    first = runs[0]
    return {
        "config": first["config"],
        "seeds": sorted(run["seed"] for run in runs),
        "scores": scores,
        "seconds_per_epoch": statistics.median(run["seconds_per_epoch"] for run in runs),
        "epochs": first["epochs"],
        "trained_parameters": first["trained_parameters"],
        "encoder": first["encoder"]["name"],
        "hardware": first["hardware"],
        "versions": first["versions"],
        "commits": sorted(
            {str(run["commit"]) + ("-dirty" if run["dirty"] else "") for run in runs}
        ),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table; scores x100, with ± one standard deviation over seeds."""
    lines = ["| config | seeds | " + " | ".join(COLUMNS) + " | s/epoch |"]
    lines.append("|" + "---|" * (len(COLUMNS) + 3))
    for row in rows:
        cells = []
        for key in COLUMNS:
            score = row["scores"].get(key)
            spread = f" ± {100 * score['spread']:.1f}" if score and score["spread"] else ""
            cells.append(f"{100 * score['mean']:.1f}{spread}" if score else "")
        config = " ".join(row["config"]) or "defaults"
        seeds = len(row["seeds"])
        pace = f"{row['seconds_per_epoch']:.0f}"
        lines.append(f"| `{config}` | {seeds} | {' | '.join(cells)} | {pace} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
