"""Prove that a change changed no number: `python -m benchmarks.losses`.

Trains a merge, an attention and a minimum-risk model for four epochs on 300 drawn scenes, with one
seed and one thread, and compares the losses and scores of each epoch with docs/results/losses.json.
On the machine that wrote the file they are equal to the last digit; another processor rounds sums
differently. `python -m benchmarks.losses write` writes the file anew: where numbers are meant to
change, and with the reason in the commit.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "results" / "losses.json"
TOLERANCE = 1e-3  # relative: rounding of other processors, after four epochs
SMALL = [
    "data=scenes",
    "data.images=300",
    "encoder.name=resnet18",
    "encoder.weights=none",
    "encoder.image_size=32",
    "text_encoder=minilm",
    "datamodule.min_count=1",
    "datamodule.batch_size=32",
    "training.learning_rate=1e-2",
    "trainer.gpus=0",
    "trainer.max_epochs=4",
    "callbacks.progress=null",
]
RUNS = {
    "merge": ["model=merge", "model.hidden_dim=32"],
    "attention": ["model=attention", "model.embed_dim=32", "model.hidden_dim=32"],
}
RUNS["risk"] = [*RUNS["attention"], "training=risk", "training.risk_epochs=1"]


def measure() -> dict[str, list[dict[str, str]]]:
    """Train each run; return its losses and scores by epoch, as metrics.csv has them."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in RUNS.items():
            command = [sys.executable, "-m", "captioning.train", *SMALL, *options]
            command.append(f"hydra.run.dir={folder}/{name}")
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
            with open(Path(folder, name, "metrics.csv"), newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            keys = [key for key in rows[0] if key.startswith(("train/", "val/"))]
            logged = [{key: row[key] for key in keys if row[key]} for row in rows]
            results[name] = [row for row in logged if row]
    return results


def compare(expected: dict[str, list], measured: dict[str, list]) -> float:
    """Print the largest relative difference of each run; return the largest of all."""
    largest = 0.0
    for name, rows in expected.items():
        differences = [
            abs(float(now[key]) / float(value) - 1) if float(value) else abs(float(now[key]))
            for before, now in zip(rows, measured[name], strict=True)
            for key, value in before.items()
        ]
        equal = measured[name] == rows
        text = "equal to the last digit" if equal else f"differ by {max(differences):.1e} at most"
        print(f"{name}: {len(differences)} numbers {text}")
        largest = max(largest, *differences)
    return largest


def main(arguments: list[str]) -> int:
    """Compare, or write the file; returns the exit code."""
    measured = measure()
    if arguments == ["write"]:
        FILE.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(f"written: {FILE}")
        return 0
    return int(compare(json.loads(FILE.read_text(encoding="utf-8")), measured) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
