"""`python -m benchmarks`: every row, ours beside the baseline, in one run.

Writes outputs/bench/<time>/bench.json, table.md and plot.png, and prints the table. Run nothing
else meanwhile. `python -m benchmarks quick` takes smaller pieces, `smoke` so small ones that only
whether it runs is known; `--only lstm,beam` some rows; `--table FILE.json` prints the table of an
earlier run.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch

from benchmarks import captions, encoding, memory, searching, startup, training
from benchmarks.report import plot, table
from benchmarks.rows import Row
from captioning.training.provenance import provenance

REPEATS = {"full": 5, "quick": 2, "smoke": 1}
SIZES = {  # of a piece, in the order of REPEATS
    "merge": (training.merge, 20, 3, 1),
    "lstm": (training.lstm, 40, 4, 1),
    "attention": (training.attention, 20, 3, 1),
    "encoding": (encoding.encoding, 128, 32, 8),
    "caption": (captions.captions, 512, 32, 4),
    "beam": (searching.beam, 1000, 100, 4),
    "bert_similarity": (searching.bert_similarity, 1000, 100, 20),
    "memory": (memory.memory, (8_000, 80_000, 800_000), (800, 8_000), (800,)),
    "keras": (training.keras, 40, 4, 1),
}


def main() -> None:
    """Run the rows that were asked for, all unless some are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("size", nargs="?", default="full", choices=REPEATS)
    parser.add_argument("--only", default="", help="names of rows, with commas")
    parser.add_argument("--repeats", type=int, help="of each side (default: 5, 2, 1)")
    parser.add_argument("--out", metavar="FOLDER", default="outputs/bench")
    parser.add_argument("--keras", metavar="PYTHON", help="an interpreter with tensorflow-cpu")
    parser.add_argument("--table", metavar="FILE", help="print the table of a bench.json")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(Path(arguments.table).read_text(encoding="utf-8"))))
        return
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    known = [*(name for name in SIZES if name != "keras"), "startup"]
    repeats = arguments.repeats or REPEATS[arguments.size]
    only = arguments.only.split(",") if arguments.only else known
    if not set(only) <= set(known):
        parser.error(f"--only {arguments.only}: the names are {', '.join(known)}")
    torch.manual_seed(0)
    content = provenance(torch.device("cpu")) | {"size": arguments.size, "rows": []}
    folder = Path(arguments.out) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True)
    for name in [*only, *(["keras"] if arguments.keras else [])]:
        start = time.perf_counter()
        rows = measure(name, arguments.size, repeats, arguments.keras)
        content["rows"] += [row.described() for row in rows]
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        text = json.dumps(content, indent=1)
        (folder / "bench.json").write_text(text + "\n", encoding="utf-8")
    (folder / "table.md").write_text(table(content) + "\n", encoding="utf-8")
    plot(content, folder / "plot.png")
    print(f"\n{table(content)}\n\n{folder}/")


def measure(name: str, size: str, repeats: int, keras: str | None) -> list[Row]:
    """Measure the rows of that name, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "startup":
            return startup.startup(Path(folder), repeats if size == "full" else 1)
        rows, *pieces = SIZES[name]
        piece = pieces[list(REPEATS).index(size)]
        return rows(Path(folder), repeats, piece, *([keras] if name == "keras" else []))


if __name__ == "__main__":
    main()
