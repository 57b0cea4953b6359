"""One run in two processes, and runs that get a signal from a queue or a user.

Two processes must give the numbers of one, and each file once.
"""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from glob import glob

import pytest
import torch
from composing import composed
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from verbs import TINY, TWO, run

from captioning import UserError
from captioning.captioner import Captioner
from captioning.checkpoint import read_checkpoint
from captioning.config.compose import resolve_config
from captioning.training.run import train

pytestmark = pytest.mark.slow


def rows(run_folder, file):
    with open(run_folder / file, newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def both(folder):
    """The folders of a run by one process and of the same by two.

    Without dropout, which draws other numbers in each process, and with a model that has no batch
    norm, which would see half of each batch. Captions differ in length, so that the halves do.
    """
    shutil.copytree(folder / "data", folder / "uneven")
    with open(folder / "uneven" / "captions.csv", "a") as table:
        table.write("train-red.png,a small red square on a grey wall,train\n")
        table.write("train-blue.png,blue all over,train\n")
    options = [*TINY, "data.root=uneven", "model=merge", "model.dropout=0", "trainer.max_epochs=3"]
    options.append("datamodule.batch_size=5")
    for name, processes in (("one", []), ("two", TWO)):
        done = run(folder, *options, *processes, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("scores of") == 1
        assert "Warning" not in done.stderr and "sync_dist" not in done.stderr
    return folder / "one", folder / "two"


def test_two_processes_have_the_loss_curve_of_one(both):
    one, two = (rows(path, "metrics.csv") for path in both)
    for key in ("train/loss", "val/loss", "val/cider", "val/semantic", "val/bert_similarity"):
        expected = [float(row[key]) for row in one if row[key]]
        assert len(expected) == 3
        measured = [float(row[key]) for row in two if row[key]]
        assert measured == pytest.approx(expected, rel=1e-5, abs=1e-5), key


def test_two_processes_learn_the_weights_of_one(both):
    one, two = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in both)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)


def test_each_image_is_captioned_once_and_files_are_written_once(both):
    one, two = (rows(path, "captions.csv") for path in both)
    assert [row["caption"] for row in two] == [row["caption"] for row in one]
    assert [row["cider"] for row in two] == [row["cider"] for row in one]
    assert len({row["image"] for row in two}) == len(two) == 4
    names = sorted(path.name for path in both[1].iterdir() if path.suffix in (".ckpt", ".json"))
    assert names == ["best.ckpt", "last.ckpt", "run.json"]
    assert json.loads((both[1] / "run.json").read_text())["status"] == "finished"


def test_torchrun_starts_the_processes_too(folder):
    torchrun = ["--standalone", "--nproc-per-node=2", "-m", "captioning.train"]
    options = [*TINY, *TWO, "data.root=data", "trainer.max_epochs=2", "hydra.run.dir=elastic"]
    done = run(folder, *torchrun, *options, module="torch.distributed.run")
    assert done.returncode == 0, done.stderr
    captioner = Captioner.from_checkpoint(folder / "elastic" / "best.ckpt")
    for row in rows(folder / "elastic", "captions.csv"):
        assert captioner(folder / row["path"]) == row["caption"]


@pytest.fixture
def start(folder, tmp_path, monkeypatch):
    """Return a function that starts a training of two processes in this one."""
    monkeypatch.chdir(folder)

    def run():
        train(resolve_config(composed(*TINY, *TWO, "data.root=data", f"run_dir={tmp_path}")))

    return run


def test_processes_without_a_common_folder_are_refused(start, monkeypatch):
    for key, value in {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(key, str(value))
    for key in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "GROUP_RANK"):
        monkeypatch.setenv(key, "0")
    # Lightning goes on believing that it is the second process; this is put back after the test.
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    with pytest.raises(UserError, match=r"hydra\.run\.dir="):
        start()


def test_each_process_encodes_on_its_own_gpu(start, monkeypatch):
    def build_data(config, device):
        raise UserError(f"encoding on {device}")

    monkeypatch.setattr("captioning.training.run.build_data", build_data)
    monkeypatch.setattr(DDPStrategy, "root_device", property(lambda _: torch.device("cuda", 1)))
    with pytest.raises(UserError, match="encoding on cuda:1"):
        start()


OPTIONS = [*TINY, "data.root=data", "callbacks.bert_similarity=null", "search=greedy"]
OPTIONS += ["datamodule.batch_size=4"]
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


def stop(folder, arguments, number, pattern):
    """Start a training, signal it once a file exists; return exit code and stderr."""
    command = [sys.executable, "-m", "captioning.train", *arguments]
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # A shell's background job ignores SIGINT, and so would its children.
    options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, text=True, **options) as process:
        while not glob(str(pattern)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    return process.returncode, errors


@pytest.mark.parametrize("environment", [SLURM, {}], ids=["slurm", "two processes"])
def test_a_preempted_job_is_resumed_by_the_same_command(folder, tmp_path, environment, monkeypatch):
    """As docs/scale.md has it: SIGTERM, exit code 143, and the same command from the queue."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    arguments = [
        *OPTIONS,
        "ckpt_path=last",
        f"hydra.run.dir={tmp_path / 'run'}",
        *([] if environment else TWO),
    ]
    last = tmp_path / "run" / "last.ckpt"
    code, errors = stop(folder, [*arguments, "trainer.max_epochs=400"], signal.SIGTERM, last)
    assert code == 143, errors
    assert "stopped and saved" in errors
    epochs = read_checkpoint(last)["epoch"] + 1
    resumed = run(folder, *arguments, f"trainer.max_epochs={epochs + 1}")
    assert resumed.returncode == 0, resumed.stderr
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert read_checkpoint(last)["epoch"] == epochs


def test_ctrl_c_in_a_sweep_is_a_sentence(folder):
    arguments = ["-m", *OPTIONS, "seed=1,2", "name=stopped", "trainer.max_epochs=400"]
    last = folder / "outputs/sweeps/stopped/*/last.ckpt"
    code, errors = stop(folder, arguments, signal.SIGINT, last)
    assert code == 130, errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors


def test_a_killed_sweep_ends_as_an_undisturbed_one(folder):
    """tests/faults/ kills training and a sweep's books at each of their writes."""
    arguments = ["-m", *OPTIONS, "seed=1,2", "trainer.max_epochs=3"]
    root = folder / "outputs" / "sweeps"
    stop(folder, [*arguments, "name=killed"], signal.SIGKILL, root / "killed/*/last.ckpt")
    for name in ("killed", "undisturbed"):
        done = run(folder, *arguments, f"name={name}")
        assert done.returncode == 0, done.stderr
    for expected in (root / "undisturbed").glob("*/last.ckpt"):
        killed = root / "killed" / expected.parent.name
        weights = [read_checkpoint(path)["state_dict"] for path in (expected, killed / "last.ckpt")]
        torch.testing.assert_close(*weights, rtol=0, atol=0)
        assert rows(killed, "metrics.csv") == rows(expected.parent, "metrics.csv")
    tables = [rows(root / name, "summary.csv") for name in ("killed", "undisturbed")]
    assert [row["cider"] for row in tables[0]] == [row["cider"] for row in tables[1]]
