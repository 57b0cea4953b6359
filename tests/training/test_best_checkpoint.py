"""best.ckpt is the best of all epochs, wherever a run goes on, and run.json says the same."""

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


def written(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def train(fit, tmp_path):
    """Return a function that trains in a folder; the score of each epoch is given."""

    def run(name, epochs=3, scores=SCORES, ckpt_path=None, monitor="val/cider", best=None, last=()):
        folder = tmp_path / name
        checkpoints = [
            best or BestCheckpoint(str(folder), monitor),
            *(last or [PortableCheckpoint(folder, "last", enable_version_counter=False)]),
        ]
        run_folder = RunFolder(str(folder), monitor)
        options = {"enable_checkpointing": True, "epochs": epochs, "scores": scores}
        fit(ExactResume(), run_folder, *checkpoints, ckpt_path=ckpt_path, **options)
        return folder

    return run


def check(folder, epoch, score, monitor="val/cider"):
    """best.ckpt and run.json speak of this epoch and score."""
    run = json.loads((folder / "run.json").read_text())
    assert epoch_of(folder / "best.ckpt") == epoch
    assert (run["best_epoch"], run["best_checkpoint"]) == (epoch, "best.ckpt")
    assert run["best_score"] == run["metrics"][monitor] == pytest.approx(score)


def elsewhere(old, new):
    return old / "last.ckpt"


def moved(old, new):
    old.rename(new)
    return new / "last.ckpt"


def copied(old, new):
    shutil.copytree(old, new)
    return new / "last.ckpt"


def linked(old, new):
    old.rename(old.with_name("far"))
    new.symlink_to(old.with_name("far"))
    return new / "last.ckpt"


def relative(old, new):
    return os.path.relpath(old / "last.ckpt")


@pytest.mark.parametrize("place", [elsewhere, moved, copied, linked, relative])
def test_the_best_epoch_is_kept_where_a_run_goes_on(train, tmp_path, monkeypatch, caplog, place):
    monkeypatch.chdir(tmp_path)
    old, new = train("old"), tmp_path / "new"
    ckpt_path = place(old, new)
    before = written(old)
    train("new", epochs=5, ckpt_path=ckpt_path)
    check(new, 1, 0.9)
    assert epoch_of(new / "last.ckpt") == 4
    assert written(old) == before
    assert "so far" not in caplog.text
    shutil.rmtree(old, ignore_errors=True)
    train("new", epochs=6, scores=[*SCORES, 1.5], ckpt_path=new / "last.ckpt")
    check(new, 5, 1.5)


def test_nothing_is_deleted_in_a_folder_within_the_new_one(train, tmp_path):
    old = train("new/old")
    shutil.copytree(old, tmp_path / "other")
    before = written(old)
    train("new", epochs=5, ckpt_path=tmp_path / "other" / "last.ckpt")
    assert written(old) == before


@pytest.mark.parametrize(
    ("mode", "monitor", "best"), [("max", "val/cider", 1), ("max", "val/loss", 2)]
)
def test_a_run_of_an_earlier_release_keeps_its_best(train, tmp_path, mode, monitor, best):
    """Which stored absolute paths, and the mode of a score for a loss."""
    old = tmp_path / "old"
    earlier = ModelCheckpoint(old, "best", monitor, mode=mode, enable_version_counter=False)
    train("old", best=earlier, last=[ModelCheckpoint(old, "last")], monitor=monitor)
    assert epoch_of(old / "best.ckpt") == (1 if monitor == "val/cider" else 0)
    new = train("new", epochs=3, ckpt_path=old / "last.ckpt", monitor=monitor)
    assert epoch_of(new / "best.ckpt") == best


@pytest.mark.parametrize("epochs", [2, 3])
def test_where_only_last_came_along_it_counts_and_a_loss_is_told(train, tmp_path, caplog, epochs):
    old = train("old", epochs=epochs)
    (old / "best.ckpt").unlink()
    with caplog.at_level(logging.WARNING, "captioning"):
        new = train("new", epochs=4, ckpt_path=old / "last.ckpt")
    check(new, *{2: (1, 0.9), 3: (3, 0.7)}[epochs])
    assert ("weights of epoch 1, the best so far: val/cider 0.9000" in caplog.text) is (epochs == 3)


@pytest.mark.parametrize("what", ["another run", "damaged"])
def test_a_best_checkpoint_that_is_not_of_this_run_is_not_taken(train, caplog, what):
    old, other = train("old"), train("other", scores=[2, 1, 3])
    if what == "another run":
        shutil.copy(other / "best.ckpt", old)
    else:
        content = bytearray((old / "best.ckpt").read_bytes())
        content[len(content) // 2] ^= 4
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
    train("new", epochs=3, ckpt_path=new / "last.ckpt")
    shutil.copy(tmp_path / "last.ckpt", new)
    train("new", epochs=3, ckpt_path=new / "last.ckpt")
    check(new, 1, 0.9)


def test_another_monitor_goes_on_with_what_is_at_hand(train, caplog):
    """val/loss falls from epoch to epoch: the last is the best of it."""
    new = train("new")
    train("new", epochs=3, ckpt_path=new / "last.ckpt", monitor="val/loss")
    assert epoch_of(new / "best.ckpt") == 2
    assert "so far" not in caplog.text


def test_checkpoints_hold_no_path(train, tmp_path):
    content = torch.load(train("old") / "last.ckpt", weights_only=True)["callbacks"]
    assert str(tmp_path) not in str(content)


def test_a_checkpoint_that_was_not_written_is_not_the_best(train, tmp_path, monkeypatch):
    save = pl.Trainer.save_checkpoint

    def fill(self, *arguments):
        if self.current_epoch == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, *arguments)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", fill)
    with pytest.raises(OSError, match="No space left"):
        train("new")
    check(tmp_path / "new", 0, 0.5)


class ScoreOfEachValidation(pl.Callback):
    def __init__(self, *scores):
        self.scores = iter(scores)

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            pl_module.log("val/bleu1", next(self.scores))


def test_of_several_validations_an_epoch_the_best_is_kept(fit, tmp_path, caplog):
    def train(name, epochs, *scores, ckpt_path=None):
        best = BestCheckpoint(str(tmp_path / name), "val/bleu1")
        last = PortableCheckpoint(tmp_path / name, "last", enable_version_counter=False)
        callbacks = [RunFolder(str(tmp_path / name), "val/bleu1"), best, last]
        options = {"enable_checkpointing": True, "epochs": epochs, "val_check_interval": 0.5}
        fit(ScoreOfEachValidation(*scores), *callbacks, ckpt_path=ckpt_path, **options)
        return tmp_path / name

    folder = train("one", 2, 0.9, 0.2, 0.3, 0.4)
    check(folder, 0, 0.9, "val/bleu1")
    new = tmp_path / "two"
    new.mkdir()
    shutil.copy(folder / "last.ckpt", new / "last.ckpt")
    train("two", 3, 0.6, 0.5, ckpt_path=str(new / "last.ckpt"))
    assert "has the weights of epoch 0, the best so far: val/bleu1 0.9" in caplog.text
    check(new, 2, 0.6, "val/bleu1")


def test_a_loss_in_training_is_that_of_the_epoch(fit, tmp_path):
    best = BestCheckpoint(str(tmp_path), "train/loss")
    run_folder = RunFolder(str(tmp_path), "train/loss")
    options = {"enable_checkpointing": True, "check_val_every_n_epoch": 2}
    fit(run_folder, best, epochs=4, **options)
    history = json.loads((tmp_path / "run.json").read_text())["history"]
    assert best.scores == {row["epoch"]: pytest.approx(row["train/loss"]) for row in history}
