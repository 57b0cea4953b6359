"""The page and the batch command under load, for seconds; benchmarks/load.py does all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_no_client_harms_another_and_memory_stays(tmp_path):
    pytest.importorskip("gradio")
    out = tmp_path / "load.json"
    sizes = ["--seconds", "8", "--images", "200"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", *sizes, "--out", str(out)],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    load = json.loads(out.read_text())
    assert not load["page"]["failures"] + list(load["page"]["logged"])
    kinds = {"usual", "slow", "vanishing", "oversize", "no_image"}
    assert set(load["page"]["requests"]) == kinds
    assert load["page"]["memory"]["highest"] < 2500
    assert load["batch"]["captions"] == load["batch"]["pictures"] == 200
    assert load["batch"]["returncode"] == load["batch"]["errors"] == 0
