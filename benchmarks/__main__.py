"""`python -m benchmarks`: every row, ours beside the ordinary way, in one run.

Writes outputs/bench/<time>/bench.json, table.md and plot.png, and prints the table. Run nothing
else meanwhile. `python -m benchmarks quick` takes smaller pieces; `--only lstm,beam` some rows;
`--table FILE.json` prints the table of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import torch

from benchmarks import encoding, memory, searching, startup, training
from benchmarks.report import plot, table
from benchmarks.rows import Row
from captioning.callbacks.provenance import provenance

SIZES = {  # of a piece: full, quick
    "merge": (training.merge, 20, 3),
    "lstm": (training.lstm, 40, 4),
    "attention": (training.attention, 20, 3),
    "encoding": (encoding.encoding, 128, 32),
    "beam": (searching.beam, 1000, 100),
    "bert_similarity": (searching.bert_similarity, 1000, 100),
    "memory": (memory.memory, (8_000, 80_000, 800_000), (800, 8_000)),
}


def main() -> None:
    """Run the rows that were asked for, all unless some are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("size", nargs="?", default="full", choices=("full", "quick"))
    parser.add_argument("--only", default="", help="names of rows, with commas")
    parser.add_argument("--repeats", type=int, help="of each side (default: 5; 2 where quick)")
    parser.add_argument("--out", metavar="FOLDER", default="outputs/bench")
    parser.add_argument("--keras", metavar="PYTHON", help="an interpreter with tensorflow-cpu")
    parser.add_argument("--table", metavar="FILE", help="print the table of a bench.json")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(Path(arguments.table).read_text(encoding="utf-8"))))
        return
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    quick = arguments.size == "quick"
    known = [*SIZES, "startup"]
    only = arguments.only.split(",") if arguments.only else known
    if not set(only) <= set(known):
        parser.error(f"--only {arguments.only}: the names are {', '.join(known)}")
    torch.manual_seed(0)
    content = provenance(torch.device("cpu")) | {"size": arguments.size, "rows": []}
    folder = Path(arguments.out) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True)
    for name in [*only, *(["keras"] if arguments.keras else [])]:
        start = time.perf_counter()
        rows = measure(name, quick, arguments.repeats or (2 if quick else 5), arguments.keras)
        content["rows"] += [_described(row) for row in rows]
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        text = json.dumps(content, indent=1)
        (folder / "bench.json").write_text(text + "\n", encoding="utf-8")
    (folder / "table.md").write_text(table(content) + "\n", encoding="utf-8")
    plot(content, folder / "plot.png")
    print(f"\n{table(content)}\n\n{folder}/")


def measure(name: str, quick: bool, repeats: int, keras: str | None) -> list[Row]:
    """Measure the rows of that name, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "keras":
            return training.keras(Path(folder), repeats, 4 if quick else 40, keras)
        if name == "startup":
            return startup.startup(Path(folder), 1 if quick else repeats)
        rows, full, small = SIZES[name]
        return rows(Path(folder), repeats, small if quick else full)


def _described(row: Row) -> dict:
    return asdict(row) | {"ratio": row.ratio, "of_limit": row.of_limit}


if __name__ == "__main__":
    main()
