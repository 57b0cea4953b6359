"""`python -m benchmarks.gpu`: tests and rows on a GPU, each row beside a baseline on that card.

Runs `pytest -m gpu`, then the rows, and writes docs/results/gpu.json after each of them. The exit
code is 1 if a test or a row fails, 2 where torch finds no GPU. `--table FILE.json` prints the table
of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_rows import ROWS, Bench
from benchmarks.report import table
from captioning.training.fit import filter_lightning_warnings
from captioning.training.provenance import provenance
from captioning.training.trainer import configure_torch

ROOT = Path(__file__).parents[1]


def run_tests() -> tuple[bool, dict[str, int] | None]:
    """Run the tests that need a GPU; return whether all is well, and pytest's own counts."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "6", "--dist", "loadgroup"]
    # The machine's own torch may be one that others' warnings are about.
    command += ["-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning"]
    command += ["-p", "no:benchmark"]  # a plug-in that warns of xdist
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"  # a checkout need not be installed
    environment, counts = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}, None
    with subprocess.Popen(
        [*command, "-q", "tests/gpu"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if re.search(r"\d+ \w+.* in [\d.]+s", line):
                found = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", line)}
                counts = {kind: found.get(kind, 0) for kind in ("passed", "failed", "skipped")}
                counts["failed"] += found.get("error", 0) + found.get("errors", 0)
    return process.returncode == 0, counts


def describe_gpu() -> dict[str, Any]:
    """Return what a number depends on beside the name of the card."""
    driver, properties = None, torch.cuda.get_device_properties(0)
    if program := shutil.which("nvidia-smi"):
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]
    return {
        "name": properties.name,
        "driver": driver or None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
    }


def measure(names: list[str], content: dict[str, Any], bench: Bench, write: Callable) -> None:
    """Add each row to `content`, or the error in its place, and write it."""
    for name in names:
        start = time.perf_counter()
        try:
            rows = ROWS[name][0](bench, ROWS[name][1])
            content["rows"] += [row.described() for row in rows]
        except Exception as error:  # the other rows are measured all the same
            traceback.print_exc()
            content["errors"].append({"name": name, "error": f"{type(error).__name__}: {error}"})
        write()
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    """Run the tests and the rows that were asked for, all unless some are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", default=",".join(ROWS), help="names of rows, with commas")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "gpu.json")
    parser.add_argument("--no-tests", action="store_true", help="only the rows")
    parser.add_argument("--commit", metavar="SHA", help="of a copy of the tree without .git")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a gpu.json")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text(encoding="utf-8"))))
        return
    names = options.only.split(",")
    if not set(names) <= set(ROWS):
        parser.error(f"--only {options.only}: the names are {', '.join(ROWS)}")
    if not torch.cuda.is_available():
        print("torch finds no GPU here: nothing was measured", file=sys.stderr)
        sys.exit(2)
    start, passed = time.perf_counter(), True
    content = provenance(torch.device("cuda")) | {"gpu": describe_gpu(), "tests": None}
    content |= {"limit": "bfloat16", "seconds": 0.0, "names": names, "rows": [], "errors": []}
    if options.commit:
        content |= {"commit": options.commit, "dirty": None}

    def write() -> None:
        content["seconds"] = round(time.perf_counter() - start, 1)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    if not options.no_tests:
        passed, content["tests"] = run_tests()
        write()
    filter_lightning_warnings()
    configure_torch()
    with tempfile.TemporaryDirectory() as folder:
        measure(names, content, Bench(Path(folder), torch.device("cuda", 0)), write)
    if content["rows"]:
        print(f"\n{table(content)}\n\n{options.out}")
    sys.exit(0 if passed and not content["errors"] else 1)


if __name__ == "__main__":
    main()
