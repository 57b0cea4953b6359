"""Sweeps, as a user runs them: jobs that fail, and commands typed again."""

import csv

import pytest
import pytorch_lightning as pl
from verbs import TINY, run

from captioning import UserError
from captioning.sweeps.jobs import read_status
from captioning.training import run as training

pytestmark = pytest.mark.slow

COMMAND = ["-m", *TINY[:-1], "data.root=data", "trainer=debug", "search=greedy"]
SWEPT = ["model.hidden_dim=16,-1", "seed=1"]
NAMES = [f"model.hidden_dim={size},seed=1" for size in (16, -1)]


@pytest.fixture(scope="module")
def swept(folder):
    """A sweep of two jobs, of which one fails, and its folder."""
    done = run(folder, *COMMAND, *SWEPT)
    return done, folder / "outputs" / "sweeps" / "model.hidden_dim"


def test_a_failed_job_stops_no_other_and_is_named_at_the_end(swept):
    done, folder = swept
    assert done.returncode == 1
    assert "1 of 2 jobs failed" in done.stderr
    failed = f"outputs/sweeps/model.hidden_dim/{NAMES[1]}"
    assert f"{failed}: model.hidden_dim=-1: it is 1" in done.stderr
    assert [read_status(folder / name)["status"] for name in NAMES] == ["finished", "failed"]
    for file in ("traceback.txt", "train.log"):
        assert "it is 1 to 65536" in (folder / NAMES[1] / file).read_text()
    assert not (folder / NAMES[0] / "traceback.txt").exists()


def test_a_sweep_leaves_one_table_and_a_page(swept):
    done, folder = swept
    with open(folder / "summary.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["model.hidden_dim"], row["seeds"]) == ("16", "1")
    assert "| model.hidden_dim | seeds | cider |" in done.stdout
    assert NAMES[1] in (folder / "summary.md").read_text()
    assert "it is 1 to 65536" in (folder / "summary.html").read_text()


def test_finished_jobs_are_not_run_again(swept, folder):
    modified = (swept[1] / NAMES[0] / "best.ckpt").stat().st_mtime_ns
    done = run(folder, *COMMAND, *SWEPT[1:], "model.hidden_dim=16,8")
    assert "2 jobs, 1 of them finished before" in done.stdout
    assert done.returncode == 0, done.stderr
    assert (swept[1] / NAMES[0] / "best.ckpt").stat().st_mtime_ns == modified


def test_another_config_in_the_same_folder_is_refused_with_the_difference(swept, folder):
    done = run(folder, *COMMAND, *SWEPT, "training.warmup=0.5")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "training.warmup: 0.05 → 0.5" in done.stderr
    assert "type name=NEW" in done.stderr and "Traceback" not in done.stderr
    config = (swept[1] / NAMES[0] / ".hydra" / "config.yaml").read_text()
    assert "warmup: 0.05" in config


def test_processes_that_would_run_the_whole_sweep_are_refused(monkeypatch):
    options = {"logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", **options)
    monkeypatch.setattr(training, "is_sweep_job", lambda: False)
    training.check_processes(trainer)
    monkeypatch.setattr(training, "is_sweep_job", lambda: True)
    with pytest.raises(UserError, match=r"cannot start 2 processes.*launcher=joblib"):
        training.check_processes(trainer)
