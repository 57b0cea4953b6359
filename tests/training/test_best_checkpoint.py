"""best.ckpt is the best of all epochs, wherever a run goes on, and run.json agrees with it."""

import errno
import json
import logging
import os
import shutil

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from captioning import UserError
from captioning.training.best_checkpoint import BestCheckpoint, PortableCheckpoint
from captioning.training.resume import ExactResume
from captioning.training.run_folder import RunFolder

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]
SCORES = [0.5, 0.9, 0.6, 0.7, 0.8]


def epoch_of(path):
    return torch.load(path, weights_only=True)["epoch"]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def train(fit, tmp_path):
    """Return a function that trains in a folder, with the given score of each epoch."""

    def run(name, *callbacks, epochs=3, monitor="val/cider", earlier=False, **options):
        folder = tmp_path / name
        best = BestCheckpoint(str(folder), monitor)
        last = PortableCheckpoint(folder, "last", enable_version_counter=False)
        if earlier:  # releases stored absolute paths, and took the highest loss for the best
            best = ModelCheckpoint(folder, "best", monitor, mode="max")
            last = ModelCheckpoint(folder, "last")
        options = {"enable_checkpointing": True, "scores": SCORES} | options
        run_folder = RunFolder(str(folder), monitor)
        fit(ExactResume(), *callbacks, run_folder, best, last, epochs=epochs, **options)
        return folder

    return run


def check(folder, epoch, score, monitor="val/cider"):
    """best.ckpt and run.json are of this epoch and score."""
    run = json.loads((folder / "run.json").read_text())
    assert epoch_of(folder / "best.ckpt") == epoch
    assert (run["best_epoch"], run["best_checkpoint"]) == (epoch, "best.ckpt")
    assert run["best_score"] == run["metrics"][monitor] == pytest.approx(score)


@pytest.mark.parametrize("place", ["elsewhere", "moved", "copied", "linked", "relative"])
def test_the_best_epoch_is_kept_where_a_run_goes_on(train, tmp_path, monkeypatch, caplog, place):
    monkeypatch.chdir(tmp_path)
    old, new = train("old"), tmp_path / "new"
    ckpt_path = new / "last.ckpt"
    if place == "elsewhere":
        ckpt_path = old / "last.ckpt"
    elif place == "relative":
        ckpt_path = os.path.relpath(old / "last.ckpt")
    elif place == "copied":
        shutil.copytree(old, new)
    elif place == "moved":
        old.rename(new)
    else:
        new.symlink_to(old.rename(tmp_path / "far"))
    before = files(old)
    train("new", epochs=5, ckpt_path=ckpt_path)
    check(new, 1, 0.9)
    assert epoch_of(new / "last.ckpt") == 4
    assert files(old) == before
    assert "so far" not in caplog.text
    shutil.rmtree(old, ignore_errors=True)
    train("new", epochs=6, scores=[*SCORES, 1.5], ckpt_path=new / "last.ckpt")
    check(new, 5, 1.5)


@pytest.mark.parametrize(("monitor", "stored", "best"), [("val/cider", 1, 1), ("val/loss", 0, 2)])
def test_a_run_of_an_earlier_release_keeps_its_best(train, monitor, stored, best):
    old = train("old", monitor=monitor, earlier=True)
    assert epoch_of(old / "best.ckpt") == stored
    new = train("new", ckpt_path=old / "last.ckpt", monitor=monitor)
    assert epoch_of(new / "best.ckpt") == best


@pytest.mark.parametrize(("epochs", "best", "score"), [(2, 1, 0.9), (3, 3, 0.7)])
def test_without_best_ckpt_the_last_one_counts_and_a_loss_is_logged(
    train, caplog, epochs, best, score
):
    old = train("old", epochs=epochs)
    (old / "best.ckpt").unlink()
    with caplog.at_level(logging.WARNING, "captioning"):
        new = train("new", epochs=4, ckpt_path=old / "last.ckpt")
    check(new, best, score)
    assert ("weights of epoch 1, the best so far: val/cider 0.9000" in caplog.text) is (epochs == 3)


@pytest.mark.parametrize("kind", ["another run", "damaged"])
def test_a_best_checkpoint_that_is_not_of_this_run_is_not_taken(train, caplog, kind):
    old, other = train("old"), train("other", scores=[2, 1, 3])
    content = bytearray((old / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 4
    if kind == "another run":
        content = (other / "best.ckpt").read_bytes()
    (old / "best.ckpt").write_bytes(content)
    check(train("new", epochs=4, ckpt_path=old / "last.ckpt"), 3, 0.7)
    assert "weights of epoch 1, the best so far" in caplog.text


def test_the_best_checkpoint_of_another_run_is_not_overwritten(train):
    old, new = train("old"), train("new", scores=[2, 1, 3])
    before = (new / "best.ckpt").read_bytes()
    with pytest.raises(UserError, match=r"best\.ckpt is of another run than"):
        train("new", epochs=5, ckpt_path=old / "last.ckpt")
    assert (new / "best.ckpt").read_bytes() == before


def test_a_run_killed_between_its_checkpoints_keeps_the_better_one(train, tmp_path):
    """best.ckpt of epoch 1 is written, last.ckpt is still of epoch 0."""
    new = train("new", epochs=1)
    shutil.copy(new / "last.ckpt", tmp_path)
    train("new", ckpt_path=new / "last.ckpt")
    shutil.copy(tmp_path / "last.ckpt", new)
    train("new", ckpt_path=new / "last.ckpt")
    check(new, 1, 0.9)


def test_another_monitor_goes_on_with_what_is_at_hand(train, caplog):
    """val/loss falls from epoch to epoch: the last has the lowest."""
    new = train("new")
    train("new", ckpt_path=new / "last.ckpt", monitor="val/loss")
    assert epoch_of(new / "best.ckpt") == 2
    assert "so far" not in caplog.text


def test_checkpoints_hold_no_path(train, tmp_path):
    content = torch.load(train("old") / "last.ckpt", weights_only=True)["callbacks"]
    assert str(tmp_path) not in str(content)


def test_a_checkpoint_that_was_not_written_is_not_the_best(train, tmp_path, monkeypatch):
    save = pl.Trainer.save_checkpoint

    def fail(self, *arguments):
        if self.current_epoch == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, *arguments)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", fail)
    with pytest.raises(OSError, match="No space left"):
        train("new")
    check(tmp_path / "new", 0, 0.5)


class ScoreOfEachValidation(pl.Callback):
    def __init__(self, *scores):
        self.scores = iter(scores)

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            pl_module.log("val/bleu1", next(self.scores))


def test_of_several_validations_an_epoch_the_best_is_kept(train, tmp_path, caplog):
    options = {"val_check_interval": 0.5, "monitor": "val/bleu1"}
    old = train("old", ScoreOfEachValidation(0.9, 0.2, 0.3, 0.4), epochs=2, **options)
    check(old, 0, 0.9, "val/bleu1")
    (old / "best.ckpt").unlink()
    new = train("new", ScoreOfEachValidation(0.6, 0.5), ckpt_path=old / "last.ckpt", **options)
    assert "has the weights of epoch 0, the best so far: val/bleu1 0.9" in caplog.text
    check(new, 2, 0.6, "val/bleu1")


def test_a_loss_in_training_is_that_of_the_epoch(fit, tmp_path):
    best = BestCheckpoint(str(tmp_path), "train/loss")
    run_folder = RunFolder(str(tmp_path), "train/loss")
    fit(run_folder, best, epochs=4, enable_checkpointing=True, check_val_every_n_epoch=2)
    run = json.loads((tmp_path / "run.json").read_text())
    losses = {row["epoch"]: pytest.approx(row["train/loss"]) for row in run["history"]}
    assert best.scores == losses
    assert (run["mode"], run["best_score"]) == ("min", min(best.scores.values()))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.5, 0.9], True), ([0.9, 0.5], False), ([0.9, 0.9], False), ([0.5, 0.7, 0.9], True)],
)
def test_it_knows_whether_it_is_of_the_last_validation(fit, tmp_path, scores, expected):
    best = BestCheckpoint(str(tmp_path / "run"), "val/cider")
    fit(best, epochs=len(scores), scores=scores, enable_checkpointing=True)
    assert best.is_of_last_validation is expected
