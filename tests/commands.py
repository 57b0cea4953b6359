"""Run commands of the documents on tiny data, one after another in this process.

`python commands.py FOLDER COMMANDS.json RESULTS.json` writes for each command "", or its error.
Options are added that cut short what takes minutes; what a reader fills in (PATH, FOLDER, …) is
there.
"""

import csv
import io
import json
import os
import re
import runpy
import shlex
import shutil
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image

from captioning.features.encoder import build_classifier

ROOT = Path(__file__).parents[1]
DATA = ("data/flickr8k", "FOLDER", "DIR", "mine", "flickr30k", "coco")
RUNS = [f"outputs/runs/{name}/TIME" for name in ("lstm", "mine", "flickr8k_best")]
RUNS += [
    f"outputs/sweeps/{name}/{job}" for name in ("NAME", "best", "ablation/base") for job in "ab"
]
ENCODER = ["encoder.name=resnet18", "encoder.weights=none", "encoder.image_size=32"]
SHORT = [*ENCODER, "datamodule.min_count=1", "trainer.gpus=0"]
LONGER = re.compile(
    "every_n_epoch|experiment=(ablation|flickr8k_best|speedrun)|training=risk|last.ckpt"
)


def write_data(folder):
    """Write four images of each split, no two alike, with two captions each."""
    folder.mkdir(parents=True)
    rows = [["image", "caption", "split"]]
    for number, split in enumerate(("train", "val", "test")):
        for colour in ("red", "green", "blue", "white"):
            name = f"{split}-{colour}.png"
            Image.new("RGB", (40 + number, 32), colour).save(folder / name)
            rows += [[name, f"{start} {colour} square", split] for start in ("a", "there is a")]
    with open(folder / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def prepare():
    """Write what the commands read: data, images, and the checkpoints of a training."""
    for folder in DATA:
        write_data(Path(folder))
    Path("holiday").mkdir()
    for colour in ("red", "blue"):
        shutil.copy(f"FOLDER/val-{colour}.png", f"holiday/{colour}.png")
    options = ["data=folder", "data.root=FOLDER", "text_encoder=minilm", "hydra.run.dir=run"]
    if error := run_module("captioning.train", [*options, *SHORT, "trainer.max_epochs=2"]):
        raise RuntimeError(error)
    for folder in RUNS:
        shutil.copytree("run", folder)
    for name in ("PATH", "A", "B", "C"):
        shutil.copy("run/best.ckpt", name)
    torch.save(build_classifier("resnet18", 32).state_dict(), "FILE.pth")


def shorten(module, arguments):
    """Return the arguments with options that cut them short; of a sweep only the first values."""
    replaced = {"model=yours": "model=lstm", "name=best": "name=best/again"}  # best/a is there
    arguments = [re.sub("^docs/", f"{ROOT}/docs/", replaced.get(each, each)) for each in arguments]
    if module not in ("captioning.train", "captioning.tune", "captioning.encode"):
        return arguments
    arguments = [re.sub(r"^([\w.]+=[^,\[]*),.*", r"\1", argument) for argument in arguments]
    if module == "captioning.encode":
        return [*arguments, *ENCODER]
    keys = {argument.partition("=")[0] for argument in arguments}
    experiments = {each.split("=")[1] for each in arguments if each.startswith("experiment=")}
    if "text_encoder" not in keys and not experiments - {"flickr8k_best"}:
        arguments.append("text_encoder=minilm")
    longer = LONGER.search(" ".join(arguments))
    added = [*SHORT, f"trainer.max_epochs={3 if longer else 1}"]
    if "experiment=finetune" in arguments:  # the encoder of the captioner in the package
        added = ["trainer.gpus=0", "trainer.max_epochs=1"]
    if {"training=risk", "experiment=flickr8k_best", "experiment=speedrun"} & {*arguments}:
        added.append("training.risk_epochs=1")
    if {"data=scenes", "experiment=demo"} & {*arguments}:
        added.append("data.images=40")
    if "sweep=capacity" in arguments:
        added += ["model=lstm", "model.hidden_dim=8", "seed=1"]
    if module == "captioning.tune":
        added.append("trials=1")
    return [*arguments, *added]


def run_module(module, arguments):
    """Do what `python -m MODULE ARGUMENTS` does; return "" or, after an error, what it printed."""
    output, code = io.StringIO(), 0
    argv = patch.object(sys, "argv", [module, *arguments])
    try:
        with argv, redirect_stdout(output), redirect_stderr(output):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        code = traceback.format_exc()
    return f"{code}\n{output.getvalue()[-3000:]}" if code else ""


def main(folder, commands, results):
    """Run them all in `folder`."""
    commands = json.loads(Path(commands).read_text())
    os.chdir(folder)
    prepare()
    errors = {}
    for command in commands:
        words = shlex.split(command, comments=True)
        start = words.index("-m") + 1
        variables = dict(word.split("=", 1) for word in words[: start - 2])
        with patch.dict(os.environ, variables):
            errors[command] = run_module(words[start], shorten(words[start], words[start + 1 :]))
    Path(results).write_text(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
