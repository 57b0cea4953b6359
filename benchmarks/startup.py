"""Rows: how long a user waits for the first step of training, and for an answer of the verb."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytorch_lightning as pl
from PIL import Image

from benchmarks.rows import Row, in_turn

IMPORTS = "import torch, pytorch_lightning, transformers"
ROOT = Path(__file__).parents[1]


class StopAtFirstStep(pl.Callback):
    """Ends the process where the first step would begin."""

    def on_train_batch_start(self, *_) -> None:
        """End at once: what happens at the end of a run is not what is measured."""
        os._exit(0)


def startup(folder: Path, repeats: int) -> list[Row]:
    """`python -m captioning.train` to its first step, features cached; `--help`; a misspelt key."""
    data = folder / "data"
    data.mkdir()
    with open(data / "captions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "split"])
        for at in range(40):
            Image.new("RGB", (64, 64), (6 * at, 0, 0)).save(data / f"{at}.png")
            table.writerow([f"{at}.png", "a red square", "train" if at < 30 else "val"])
    options = [
        "data=folder",
        f"data.root={data}",
        "encoder=efficientnet_lite0",
        "text_encoder=minilm",
        "trainer.gpus=0",
        "datamodule.min_count=1",
        f"hydra.run.dir={folder}/run",
        f"datamodule.features_root={folder}/features",
        "+callbacks.stop._target_=benchmarks.startup.StopAtFirstStep",
    ]

    def verb(*arguments: str):
        return lambda: run(folder, "-m", "captioning.train", *arguments)

    calls = {
        "ours": verb(*options),
        "imports": lambda: run(folder, "-c", IMPORTS),
        "help": verb("--help"),
        "misspelt": verb("modle=lstm"),
    }
    took = in_turn(calls, repeats)
    return [
        Row("start to first step", "s", took["ours"], took["imports"], IMPORTS),
        Row("train --help", "s", took["help"], took["imports"], IMPORTS),
        Row("train modle=lstm", "s", took["misspelt"], took["imports"], IMPORTS),
    ]


def run(folder: Path, *arguments: str) -> None:
    """Run Python with these arguments in `folder`; raise RuntimeError if it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment["CAPTIONING_TRUST"] = (
        "benchmarks"  # StopAtFirstStep is in no package of SECURITY.md
    )
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode and "modle=lstm" not in arguments:
        raise RuntimeError(done.stderr)
