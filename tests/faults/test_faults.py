"""Processes that are killed, a disk that is full or broken: nothing is lost or read half written.

`python tests/faults/injecting.py FOLDER [NAME …]` is the program; here it is run and counted.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tallies import faults

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """What the program counts, after all activities."""
    root = tmp_path_factory.mktemp("faults") / "work"
    program = [sys.executable, str(Path(__file__).with_name("injecting.py")), str(root)]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (root / "counts.json").exists(), done.stdout + done.stderr
    counts = json.loads((root / "counts.json").read_text())
    assert counts["wrong"] or done.returncode == 0, done.stderr
    faults["faults injected"] += sum(counts["faults"].values())
    for name, text in (
        ("checkpoints lost", "lost: "),
        ("half-written files read", "read as whole: "),
        ("features of another image", "different: features"),
    ):
        faults[name] += sum(text in wrong for wrong in counts["wrong"])
    print(done.stdout)
    return counts


def test_after_each_fault_the_next_run_ends_as_an_undisturbed_one(counts):
    assert not counts["wrong"], "\n".join(counts["wrong"])


def test_each_activity_was_disturbed_and_all_of_them_often_enough(counts):
    assert min(counts["faults"].values()) >= 15, counts["faults"]
    assert sum(counts["faults"].values()) >= 200


def test_of_ten_jobs_at_once_each_image_is_encoded_by_one(counts):
    assert counts["ten at once"] == {"encoded": 8, "equal": 10}
