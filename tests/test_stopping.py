"""Runs that are stopped, or go wrong: a sentence, nothing lost, and the same run afterwards."""

import csv
import errno
import os
import re
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import pytest
import torch
from composing import composed
from verbs import TINY, TWO

from captioning import UserError, replay
from captioning.captioner import read_checkpoint
from captioning.config.cli import disk_errors
from captioning.train import train
from captioning.training import fit
from captioning.training import minimum_risk as risk
from captioning.training.module import CaptioningModule
from captioning.training.preemption import CODE

pytestmark = pytest.mark.slow
OPTIONS = [*TINY, "data.root=data", "callbacks.bert_similarity=null", "search=greedy"]
OPTIONS += ["datamodule.batch_size=4", "trainer.max_epochs=2", "ckpt_path=last"]


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Return a function that trains two epochs of two batches in a folder, and goes on there."""
    monkeypatch.chdir(folder)

    def started(name, *options):
        train(composed(*OPTIONS, *options, f"run_dir={tmp_path / name}"))
        return tmp_path / name

    return started


def results(path):
    weights = read_checkpoint(path / "last.ckpt")["state_dict"]
    with open(path / "metrics.csv", newline="") as file:
        return {key: one.tolist() for key, one in weights.items()}, list(csv.DictReader(file))


@pytest.fixture
def after(monkeypatch):
    """Return a function that lets something happen at the n-th loss of training or validation."""
    loss = CaptioningModule._loss

    def arrange(stage, number, action):
        calls = []

        def watched(self, batch, *options):
            found = None
            if self.training == (stage == "training"):
                calls.append(1)
                found = action() if len(calls) == number else None
            return loss(self, batch, *options) if found is None else found

        monkeypatch.setattr(CaptioningModule, "_loss", watched)

    return arrange


# An epoch has two batches, of training as of validation.
MOMENTS = [("training", 1), ("training", 2), ("training", 3), ("training", 4)]
MOMENTS += [("validation", 1), ("validation", 2), ("validation", 3)]


@pytest.mark.parametrize(
    ("number", "stage", "call"),
    [*((signal.SIGTERM, *moment) for moment in MOMENTS), (signal.SIGUSR1, "training", 3)],
)
def test_a_run_that_was_told_to_end_goes_on_as_if_not(run, after, capsys, number, stage, call):
    straight = results(run("straight"))
    after(stage, call, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stop:
        run("stopped")
    assert stop.value.code == CODE == 143
    told = capsys.readouterr().err
    assert "stopped and saved:\n  python -m" in told and told.rstrip().endswith("ckpt_path=last")
    assert results(run("stopped")) == straight


def test_a_run_that_was_told_to_end_in_its_last_part_goes_on_as_if_not(run, monkeypatch):
    options = ["training=risk", "training.risk_epochs=1"]
    straight = results(run("straight", *options))
    worth, calls = risk.expected_worth, []

    def watched(*arguments):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return worth(*arguments)

    monkeypatch.setattr(risk, "expected_worth", watched)
    with pytest.raises(SystemExit):
        run("stopped", *options)
    assert results(run("stopped", *options)) == straight


def test_a_loss_that_is_no_number_leaves_its_batch(run, after):
    after("training", 3, lambda: torch.tensor(float("nan"), requires_grad=True))
    told = r"the loss is nan in epoch 1, step 2.*learning_rate.*captioning\.replay"
    with pytest.raises(UserError, match=told) as error:
        run("nan")
    path = re.search(r"captioning\.replay (\S+)", str(error.value))[1]
    said = replay.replay(Path(path))
    assert "epoch 1, step 2: loss nan" in said
    assert "neither features nor weights" in said
    assert re.search(r"in float32, without dropout: \d", said)


def test_out_of_memory_tells_the_batch_size_that_fits(run, monkeypatch):
    loss = CaptioningModule._loss

    def large(self, batch, *options):
        if len(batch.tokens) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …")
        return loss(self, batch, *options)

    monkeypatch.setattr(CaptioningModule, "_loss", large)
    with pytest.raises(UserError, match=r"out of memory.*datamodule\.batch_size=2 fits"):
        run("large")


def test_a_dead_data_worker_is_a_sentence(run, after):
    def die():
        raise RuntimeError("DataLoader worker (pid(s) 123) exited unexpectedly")

    after("training", 2, die)
    with pytest.raises(UserError, match="a process that read data has died"):
        run("dead")


def test_a_disk_too_small_for_checkpoints_is_said_before_training(run, after, monkeypatch):
    full = fit.shutil.disk_usage("/")._replace(free=1)
    monkeypatch.setattr(fit.shutil, "disk_usage", lambda folder: full)
    after("training", 1, lambda: pytest.fail("it trained"))
    with pytest.raises(UserError, match=r"checkpoints of .* weights take"):
        run("small")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_what_a_disk_refuses_is_a_sentence(number):
    told = r"x/last\.ckpt: .*then the same command goes on"
    with pytest.raises(UserError, match=told), disk_errors("the same command"):
        raise OSError(number, os.strerror(number), "x/last.ckpt")
    with pytest.raises(FileNotFoundError), disk_errors("the same command"):
        raise FileNotFoundError(errno.ENOENT, "not the disk's", "x")


SLURM = {  # what srun sets for a job of one task
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "captioning",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODELIST": "localhost",
}


def stopped(command, number, pattern, folder, environment):
    """Start a command, signal it once a file is there; return exit code and what it said."""
    options = {"cwd": folder, "env": environment, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, **options) as process:
        while not glob(str(pattern)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    return process.returncode, told


@pytest.mark.parametrize("environment", [SLURM, {}], ids=["slurm", "two processes"])
def test_a_queue_that_takes_the_machine_and_gives_it_back(folder, tmp_path, environment):
    """As docs/scale.md has it: SIGTERM, exit code 143, and the same command from the queue."""
    command = [sys.executable, "-m", "captioning.train", *OPTIONS, "trainer.max_epochs=400"]
    command += [] if environment else TWO
    command += [f"hydra.run.dir={tmp_path / 'run'}"]
    environment = os.environ | environment | {"HF_HUB_OFFLINE": "1"}
    last = tmp_path / "run" / "last.ckpt"
    code, told = stopped(command, signal.SIGTERM, last, folder, environment)
    assert code == 143, told
    assert "stopped and saved" in told
    epochs = read_checkpoint(tmp_path / "run" / "last.ckpt")["epoch"] + 1
    command[command.index("trainer.max_epochs=400")] = f"trainer.max_epochs={epochs + 1}"
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    again = subprocess.run(command, **options)
    assert again.returncode == 0, again.stderr
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["epoch"] == epochs


def test_ctrl_c_in_a_sweep_is_a_sentence(folder):
    command = [sys.executable, "-m", "captioning.train", "-m", *OPTIONS[:-1], "seed=1,2"]
    command += ["name=stopped", "trainer.max_epochs=400"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    last = folder / "outputs/sweeps/stopped/*/last.ckpt"
    code, told = stopped(command, signal.SIGINT, last, folder, environment)
    assert code == 130, told
    assert "the same command goes on" in told
    assert "Traceback" not in told
