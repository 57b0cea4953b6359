"""One run in two processes: what must be equal to one process, and what must be there once."""

import csv
import json
import shutil

import pytest
import torch
from composing import composed
from hydra.types import RunMode
from omegaconf import read_write
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from verbs import TINY, TWO, run

from captioning import UserError
from captioning.captioner import Captioner
from captioning.train import train

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
    for name, more in (("one", []), ("two", TWO)):
        done = run(folder, *options, *more, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("scores of") == 1
        assert "Warning" not in done.stderr
        assert "sync_dist" not in done.stderr
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
    assert one.keys() == two.keys()
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=0, atol=1e-5)


def test_each_picture_is_captioned_once_and_files_are_there_once(both):
    one, two = (rows(path, "captions.csv") for path in both)
    assert [row["caption"] for row in two] == [row["caption"] for row in one]
    assert len({row["image"] for row in two}) == len(two) == 4
    names = sorted(path.name for path in both[1].iterdir() if path.suffix in (".ckpt", ".json"))
    assert names == ["best.ckpt", "last.ckpt", "run.json"]
    assert json.loads((both[1] / "run.json").read_text())["status"] == "finished"


def test_torchrun_starts_the_processes_too(folder, trained):
    torchrun = ["--standalone", "--nproc-per-node=2", "-m", "captioning.train"]
    options = [*TINY, *TWO, "data.root=data", "trainer.max_epochs=2", "hydra.run.dir=elastic"]
    done = run(folder, *torchrun, *options, module="torch.distributed.run")
    assert done.returncode == 0, done.stderr
    captioner = Captioner.from_checkpoint(folder / "elastic" / "best.ckpt")
    for row in rows(folder / "elastic", "captions.csv"):
        assert captioner(folder / row["path"]) == row["caption"]


def started(folder, tmp_path, monkeypatch, mode):
    from hydra.core.hydra_config import HydraConfig

    monkeypatch.chdir(folder)
    cfg = composed(*TINY, *TWO, "data.root=data", f"run_dir={tmp_path}")
    with read_write(HydraConfig.instance().cfg.hydra):
        HydraConfig.instance().cfg.hydra.mode = mode
    train(cfg)


def test_a_sweep_of_several_processes_a_job_is_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="leave out -m"):
        started(folder, tmp_path, monkeypatch, RunMode.MULTIRUN)


def test_processes_without_a_common_folder_are_refused(folder, tmp_path, monkeypatch):
    for key, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    for key in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "GROUP_RANK"):
        monkeypatch.setenv(key, "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    # Lightning goes on believing that it is the second process; this is put back after the test.
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    with pytest.raises(UserError, match=r"hydra\.run\.dir="):
        started(folder, tmp_path, monkeypatch, RunMode.RUN)


def test_each_process_encodes_on_its_own_gpu(folder, tmp_path, monkeypatch):
    devices = []

    def build_data(cfg, device):
        devices.append(device)
        raise UserError("far enough")

    monkeypatch.setattr("captioning.config.build.build_data", build_data)
    monkeypatch.setattr(DDPStrategy, "root_device", property(lambda _: torch.device("cuda", 1)))
    with pytest.raises(UserError, match="far enough"):
        started(folder, tmp_path, monkeypatch, RunMode.RUN)
    assert devices == ["cuda:1"]
