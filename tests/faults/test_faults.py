"""Processes that are killed, a disk that is full or broken: nothing is lost, nothing half is read.

`python tests/faults/injecting.py FOLDER [NAME …]` is the program; here it is run and counted.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ENOUGH = 200


@pytest.fixture(scope="module")
def done(tmp_path_factory, injected):
    """What the program counts, after all activities."""
    root = tmp_path_factory.mktemp("faults") / "work"
    program = [sys.executable, str(Path(__file__).with_name("injecting.py")), str(root)]
    ended = subprocess.run(program, capture_output=True, text=True)
    assert (root / "counts.json").exists(), ended.stdout + ended.stderr
    counts = json.loads((root / "counts.json").read_text())
    injected["faults injected"] += sum(counts["faults"].values())
    injected["checkpoints lost"] += len(of(counts, "lost: "))
    injected["half-written files read"] += len(of(counts, "read as whole: "))
    injected["features of another image"] += len(of(counts, "different: features"))
    print(ended.stdout)
    return counts, ended


def of(counts, what):
    return [one for one in counts["wrong"] if what in one]


def test_after_each_fault_the_next_run_ends_as_an_undisturbed_one(done):
    counts, ended = done
    assert not counts["wrong"], "\n".join(counts["wrong"])
    assert ended.returncode == 0, ended.stderr


def test_each_activity_was_disturbed_and_all_of_them_often_enough(done):
    counts, _ = done
    assert min(counts["faults"].values()) >= 15, counts["faults"]
    assert sum(counts["faults"].values()) >= ENOUGH


def test_of_ten_jobs_at_once_each_picture_is_encoded_by_one(done):
    assert done[0]["ten at once"] == {"encoded": 8, "equal": 10}


def test_two_runs_at_once_on_one_data_folder_end_as_one_alone(done):
    assert done[0]["two at once"] == {"equal": 2}
