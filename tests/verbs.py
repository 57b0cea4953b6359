"""The verbs in real processes, with choices small enough for a test."""

import os
import subprocess
import sys

TINY = [
    "data=folder",
    "encoder=resnet18",
    "encoder.weights=none",
    "encoder.image_size=32",
    "text_encoder=minilm",
    "trainer.gpus=0",
    "datamodule.min_count=1",
    "model.hidden_dim=16",
]

TWO = ["trainer.gpus=null", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]


def run(folder, *arguments, module="captioning.train"):
    """Run a verb in a real process, in an empty folder, without a network."""
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TORCH_HOME=str(folder / "torch"))
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "\r" not in out + err  # where no terminal is, no bar is drawn over and over
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)
