"""That the benchmarks run; how fast anything is, no test says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_module(module, *options):
    command = [sys.executable, "-m", module, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_every_row_is_measured(tmp_path):
    done = run_module("benchmarks", "smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"bench.json", "table.md", "plot.png"}
    rows = {row["name"]: row for row in json.loads((folder / "bench.json").read_text())["rows"]}
    assert {"train lstm 256", "encode resnet50", "beam 5", "start to first step"} <= set(rows)
    assert all(row["ours"][0] > 0 and row["ordinary"][0] > 0 for row in rows.values())
    assert rows["train lstm 256"]["of_limit"] > 0
    for name, row in rows.items():
        assert f"| {name} ({row['unit']}) |" in done.stdout


@pytest.mark.slow
def test_a_million_may_be_a_hundred(tmp_path):
    options = ["--images", "100", "--processes", "1", "--folder", str(tmp_path)]
    done = run_module("benchmarks.million", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["features, bytes"] > 100 * 2 * 1280
    (manifest,) = tmp_path.glob("*/manifest.json")
    assert json.loads(manifest.read_text())["unreadable"] == {}


def test_a_row_that_is_not_there_is_named():
    done = run_module("benchmarks", "--only", "lstn")
    assert done.returncode == 2
    assert "the names are merge, lstm" in done.stderr
