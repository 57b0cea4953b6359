"""The first command on a GPU, to the end, its checkpoint on a CPU, and the other verbs on a GPU."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from test_gpu_encoding import HAS_PACKAGE
from verbs import run

from captioning.captioner import Captioner
from captioning.checkpoint import read_checkpoint
from captioning.data.scenes import Scenes

ENCODER = ["encoder=efficientnet_lite0"]
if not HAS_PACKAGE:
    ENCODER = ["encoder=resnet18", "encoder.weights=none", "encoder.image_size=64"]
DATA = ["data=scenes", "data.images=60"]
COMMAND = [
    *DATA,
    "datamodule.min_count=1",
    *ENCODER,
    "model=lstm",
    "trainer.gpus=1",
    "callbacks.bert_similarity=null",
]

in_one_process = pytest.mark.xdist_group("first")  # which trains once


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The first command on drawn scenes, with fewer of them."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    folder = tmp_path_factory.mktemp("first")
    done = run(folder, *COMMAND, "trainer.max_epochs=3", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    return folder, done


@in_one_process
def test_the_first_command_trains_on_the_gpu_to_the_end(started):
    folder, done = started
    assert "training on cuda:0" in done.stdout + done.stderr
    assert "Warning" not in done.stderr
    hardware = json.loads((folder / "run" / "run.json").read_text())["hardware"]
    assert hardware["device"] == torch.cuda.get_device_name()
    assert read_checkpoint(folder / "run" / "last.ckpt")["epoch"] == 2


@in_one_process
def test_its_checkpoint_captions_on_a_cpu_and_on_a_gpu(started):
    folder, _ = started
    images = sorted((folder / "outputs" / "data").glob("*/000[01]*.jpg"))
    assert len(images) == 20
    expected = Captioner.from_checkpoint(folder / "run" / "best.ckpt").captions(images)
    captioner = Captioner.from_checkpoint(folder / "run" / "best.ckpt", device="cuda")
    assert captioner.device.type == "cuda"
    assert captioner.captions(images) == expected
    assert len(captioner.alternatives(images[0])) > 1


def run_on_both(folder, module, options):
    """Run a verb on a CPU and on a GPU at once; in the options, DEVICE is cpu or cuda."""

    def start(device):
        arguments = [option.replace("DEVICE", device) for option in options]
        return run(folder, *arguments, f"device={device}", module=module)

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(start, ("cpu", "cuda")):
            assert done.returncode == 0, done.stderr


@in_one_process
def test_evaluate_on_a_gpu_writes_the_captions_of_a_cpu(started, text_encoder):
    folder, _ = started
    options = ["run/best.ckpt", "split=dev", "hydra.run.dir=DEVICE"]
    options += [f"text_encoder.path={text_encoder}"]
    run_on_both(folder, "captioning.evaluate", options)
    on_cpu, on_gpu = (pd.read_csv(folder / name / "captions.csv") for name in ("cpu", "cuda"))
    assert on_cpu["caption"].tolist() == on_gpu["caption"].tolist()


def test_encode_on_a_gpu_stores_the_features_of_a_cpu(tmp_path):
    Scenes(str(tmp_path / "outputs" / "data"), 60).prepare()
    options = [*DATA, *ENCODER, "features_root=DEVICE"]
    run_on_both(tmp_path, "captioning.encode", options)
    (on_cpu,), (on_gpu,) = ((tmp_path / name).glob("*/features-*.npy") for name in ("cpu", "cuda"))
    on_cpu, on_gpu = (np.load(path).astype(np.float32) for path in (on_cpu, on_gpu))
    assert np.abs(on_cpu - on_gpu).max() < 1e-3 * np.abs(on_cpu).max()


def test_processes_that_nccl_connects_train(tmp_path):
    """One of them, for want of GPUs."""
    options = ["trainer.strategy=ddp", "trainer.max_epochs=2", "hydra.run.dir=run"]
    done = run(tmp_path, *COMMAND, *options)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["epoch"] == 1


def test_sigterm_saves(tmp_path):
    command = [sys.executable, "-m", "captioning.train", *COMMAND, "hydra.run.dir=run"]
    options = ["datamodule.batch_size=8", "trainer.check_val_every_n_epoch=100"]
    with (
        open(tmp_path / "out", "w") as out,
        subprocess.Popen(
            [*command, *options, "trainer.max_epochs=400"],
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(os.environ, HF_HUB_OFFLINE="1"),
        ) as process,
    ):
        for _ in range(600):
            if "Epoch 1:" in (tmp_path / "out").read_text():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143, (tmp_path / "out").read_text()
    assert "stopped and saved" in (tmp_path / "out").read_text()
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] > 0
