"""Checkpoints of today's format, and of version 1 as commit 339ca8a wrote them.

tests/checkpoints/version_1 also holds what that commit answered: answers.json.
"""

import csv
import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from verbs import run

from captioning import UserError
from captioning.captioner import Captioner
from captioning.checkpoint import load_decoder, read_checkpoint, read_pretrained
from captioning.models.old_names import decoder_sha256
from captioning.search.beam import beam_search

VERSION_1 = Path(__file__).parent / "checkpoints" / "version_1"
ANSWERS = json.loads((VERSION_1 / "answers.json").read_text())


@pytest.mark.parametrize("name", ANSWERS)
@torch.inference_mode()
def test_a_version_1_checkpoint_answers_as_it_did(name):
    path, answers = VERSION_1 / f"{name}.ckpt", ANSWERS[name]
    checkpoint = read_checkpoint(path)
    decoder = load_decoder(path, checkpoint, 512)
    assert checkpoint["captioning"]["format_version"] == 2
    assert decoder_sha256(decoder) == answers["sha256"]

    features = torch.linspace(-1, 3, 2 * 4 * 512).sin().abs().view(2, 4, 512)
    features = features.mean(1) if name in ("lstm", "lstm-tied", "merge") else features
    logits = decoder(features, torch.tensor([[1, 5, 6], [1, 7, 4]]))[:, -1]
    torch.testing.assert_close(logits, torch.tensor(answers["logits"]), atol=2e-5, rtol=0)
    hypotheses = beam_search(decoder, features, width=3, max_length=5)
    assert hypotheses.tokens[:, 0].tolist() == answers["tokens"]


def test_a_version_1_folder_holds_what_its_checkpoint_does():
    exported = read_pretrained(VERSION_1 / "folder")
    checkpoint = read_checkpoint(VERSION_1 / "attention.ckpt")
    assert exported["captioning"]["format_version"] == 2
    assert exported["state_dict"].keys() == checkpoint["state_dict"].keys()
    for key, value in exported["state_dict"].items():
        assert torch.equal(value, checkpoint["state_dict"][key])
    Captioner.from_pretrained(VERSION_1 / "folder")


@pytest.mark.slow
def test_a_version_1_run_goes_on(folder, tmp_path):
    """Config, weights, optimizer and random states are restored, in the schedule of two epochs."""
    shutil.copy(VERSION_1 / "attention.ckpt", tmp_path / "last.ckpt")
    options = f"trainer.max_epochs=2 ckpt_path={tmp_path}/last.ckpt hydra.run.dir=version_1"
    done = run(folder, *options.split())
    assert done.returncode == 0, done.stderr
    with (folder / "version_1" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["epoch"] == "1"]
    for key, loss in ANSWERS["attention"]["resumed"].items():
        assert [float(row[key]) for row in rows if row[key]] == [pytest.approx(loss, rel=1e-5)]
    assert torch.load(folder / "version_1" / "last.ckpt")["captioning"]["format_version"] == 2


def spoiled(tmp_path, **changes):
    """Save a version 1 checkpoint with other values; a key with __ is one inside."""
    checkpoint = torch.load(VERSION_1 / "merge.ckpt", weights_only=True)
    for keys, value in changes.items():
        *outer, last = keys.split("__")
        functools.reduce(dict.get, outer, checkpoint)[last] = value
    torch.save(checkpoint, tmp_path / "spoiled.ckpt")
    return tmp_path / "spoiled.ckpt"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("captioning", None, "is not a checkpoint of captioning"),
        ("captioning__vocabulary", None, r"it has no .*vocabulary"),
        ("captioning__vocabulary", ["a", 3], r"it has no .*vocabulary"),
        ("captioning__encoder", "x", "identity of its encoder"),
        ("captioning__config", [], "config of encoder and model"),
        ("captioning__config__model", 1, "config of encoder and model"),
        ("state_dict", {3: 4}, "or weights"),
        ("state_dict__x", 4, "not plain tensors"),
        ("state_dict__x", torch.nn.Parameter(), "not plain tensors"),
        ("captioning__format_version", 0, "is 0, this release reads 1 to 2"),
        ("captioning__format_version", 3, "is 3, this release reads 1 to 2"),
        ("captioning__format_version", "1", "it has no format version"),
        ("captioning__format_version", torch.ones(2), "it has no format version"),
    ],
)
def test_contents_that_training_does_not_store_are_refused(tmp_path, key, value, message):
    with pytest.raises(UserError, match=message):
        read_checkpoint(spoiled(tmp_path, **{key: value}))


def test_weights_of_ones_own_model_and_a_batch_are_converted_too(tmp_path):
    """A model outside of the package has its own names; captioning.replay reads the batch."""
    batch = {"rows": 1, "pictures": 2, "words": 3}
    path = spoiled(tmp_path, captioning__config__model___target_="mine.Model", batch=batch)
    checkpoint = read_checkpoint(path)
    old = torch.load(VERSION_1 / "merge.ckpt", weights_only=True)["state_dict"]
    assert checkpoint["state_dict"].keys() == old.keys()
    assert checkpoint["batch"] == {"store_rows": 1, "image_index": 2, "target_positions": 3}
