import json
import logging

import optuna
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from captioning.training.best_checkpoint import BestCheckpoint
from captioning.training.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run_folder(folder):
    return RunFolder(str(folder), "val/cider")


def read(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


class At(pl.Callback):
    """Does something at the start of the second epoch."""

    def __init__(self, action):
        self.action = action

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.action()


def raising(error):
    def action():
        raise error

    return At(action)


def test_a_finished_run(folder, run_folder, fit):
    best, last = BestCheckpoint(str(folder), "val/cider"), ModelCheckpoint(folder, "last")
    fit(run_folder, last, best, enable_checkpointing=True)
    run = read(folder)
    assert run["status"] == "finished"
    assert (run["best_score"], run["best_epoch"]) == (1.25, 1)
    assert run["best_checkpoint"] == "best.ckpt" and (folder / "best.ckpt").exists()
    assert run["epochs"] == 2
    assert 0 < run["seconds_per_epoch"] <= run["seconds"]
    assert set(run["metrics"]) == {"train/loss", "val/loss", "val/cider", "learning_rate"}
    assert run["trained_parameters"] == 3


def test_run_json_says_running_meanwhile(folder, run_folder, fit):
    seen = []
    best = BestCheckpoint(str(folder), "val/cider")
    fit(run_folder, best, At(lambda: seen.append(read(folder))), enable_checkpointing=True)
    assert (seen[0]["status"], seen[0]["epochs"], seen[0]["best_score"]) == ("running", 1, 0.25)


def test_a_failed_run_keeps_the_reason_and_its_curves(folder, run_folder, fit):
    with pytest.raises(RuntimeError):
        fit(run_folder, raising(RuntimeError("out of memory")))
    run = read(folder)
    assert (run["status"], run["epochs"]) == ("failed", 1)
    assert run["error"] == "RuntimeError: out of memory"
    assert (folder / "curves.png").exists()


def test_a_pruned_run_has_not_failed(folder, run_folder, fit):
    with pytest.raises(optuna.TrialPruned):
        fit(run_folder, raising(optuna.TrialPruned("worse than the median")))
    assert read(folder)["status"] == "pruned"
    assert "error" not in read(folder)


def test_an_interrupted_run(folder, run_folder, fit):
    with pytest.raises(SystemExit):  # how Lightning ends after Ctrl-C
        fit(run_folder, raising(KeyboardInterrupt()))
    assert read(folder)["status"] == "interrupted"
    assert "error" not in read(folder)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_knows_the_epochs_before(folder, run_folder, fit):
    def last():
        return ModelCheckpoint(folder, "last", enable_version_counter=False)

    fit(run_folder, last(), enable_checkpointing=True, epochs=1)
    resumed = RunFolder(str(folder), "val/cider")
    fit(resumed, last(), enable_checkpointing=True, ckpt_path=folder / "last.ckpt", epochs=3)
    assert {epoch: row["val/cider"] for epoch, row in resumed.history.items()} == {
        0: 0.25,
        1: 1.25,
        2: 2.25,
    }
    assert read(folder)["epochs"] == 3


def test_the_smallest_loss_is_best(folder, fit):
    best = BestCheckpoint(str(folder), "val/loss")
    fit(RunFolder(str(folder), "val/loss"), best, epochs=3, enable_checkpointing=True)
    run = read(folder)
    assert (run["mode"], run["best_epoch"]) == ("min", 2)
    assert run["best_score"] == run["metrics"]["val/loss"] == run["history"][2]["val/loss"]


def test_without_a_best_checkpoint_the_last_epoch_counts(folder, run_folder, fit):
    fit(run_folder)
    run = read(folder)
    assert run["best_score"] is run["best_epoch"] is run["best_checkpoint"] is None
    assert run["metrics"]["val/cider"] == 1.25


def test_what_follows_the_fit_leaves_run_json_alone(folder, run_folder, fit):
    trainer = fit(run_folder)
    with pytest.raises(ValueError):
        trainer.validate(ckpt_path="best")
    assert read(folder)["status"] == "finished"


def test_each_epoch_is_logged_with_samples(run_folder, fit, caplog):
    with caplog.at_level(logging.INFO, "captioning"):
        fit(run_folder)
    ours = [each.getMessage() for each in caplog.records if each.name.startswith("captioning")]
    lines, tables = ours[::2], ours[1::2]
    assert [line.partition(":")[0] for line in lines] == ["epoch 0", "epoch 1"]
    assert lines[1].endswith("cider 1.25")
    assert tables[0] == tables[1]
    assert " ".join(tables[0].split()[4:12]) == "val-red.png a red square A red square ."


def test_tensorboard_gets_the_samples(folder, run_folder, fit, monkeypatch):
    logger = TensorBoardLogger(folder, name="", version="tensorboard")
    texts = []
    monkeypatch.setattr(logger.experiment, "add_text", lambda *text: texts.append(text))
    fit(run_folder, logger=logger, epochs=1)
    ((name, text, step),) = texts
    assert (name, step) == ("val/captions", 4)
    assert "| val-red.png | a red square | A red square . |" in text
