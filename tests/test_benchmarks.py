"""That the benchmarks run; how fast anything is, no test says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_row_has_both_sides_a_limit_and_a_line_in_the_table(tmp_path):
    options = ["quick", "--only", "lstm", "--repeats", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"bench.json", "table.md", "plot.png"}
    rows = json.loads((folder / "bench.json").read_text())["rows"]
    assert rows[0]["name"] == "train lstm 256"
    assert rows[0]["ours"][0] > 0
    assert rows[0]["ordinary"][0] > 0
    assert 0 < rows[0]["of_limit"] < 3
    assert "| train lstm 256 (words/s) |" in done.stdout


def test_a_row_that_is_not_there_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "lstn"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the names are merge, lstm" in done.stderr
