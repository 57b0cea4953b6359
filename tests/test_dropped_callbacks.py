"""Each callback of conf/callbacks can be dropped: the run ends well, or a sentence comes first."""

import csv
import json

import pytest
from composing import composed
from omegaconf import OmegaConf
from verbs import TINY

from captioning import UserError
from captioning.config.compose import CONF, resolve_config
from captioning.training.module import CaptioningModule
from captioning.training.run import train

pytestmark = pytest.mark.slow
NAMES = {*OmegaConf.load(CONF / "callbacks" / "default.yaml")}
CAPTIONS = ["captions", "scores", "bert_similarity"]  # the others need the first
LOSS = {"monitor": "val/loss"}
BOTH = {"best.ckpt", "last.ckpt"}


@pytest.fixture
def drop(folder, tmp_path, monkeypatch):
    """Return a function that trains one batch without the given callbacks, and more options."""
    monkeypatch.chdir(folder)

    def run(*names, **options):
        options = {"data.root": "data", "trainer": "debug", "search": "greedy"} | options
        options |= {"run_dir": tmp_path / "run"} | {f"callbacks.{name}": "null" for name in names}
        cfg = composed(*TINY, *(f"{key}={value}" for key, value in options.items()))
        train(resolve_config(cfg))
        return tmp_path / "run"

    return run


@pytest.mark.parametrize("name", sorted(NAMES - {"captions", "bert_similarity"}))
def test_a_run_without_one_callback_ends_with_scores(drop, capsys, name):
    folder = drop("bert_similarity", name, **LOSS)
    printed, files = capsys.readouterr().out, {path.name for path in folder.iterdir()}
    assert "  loss " in printed
    assert ("  cider " in printed) == (name != "scores")
    assert ("last epoch" in printed) == (name == "best")
    assert ("gallery.html" in printed) == ("gallery.html" in files) == (name != "gallery")
    assert ("best.ckpt" in files, "last.ckpt" in files) == (name != "best", name != "last")
    assert ("run.json" in files) == (name != "run_folder")


def test_without_best_the_last_epoch_is_reported(drop, capsys):
    folder = drop("bert_similarity", "best", **{"trainer.max_epochs": 2})
    printed = capsys.readouterr().out
    assert "scores of the last epoch" in printed
    assert f"checkpoint: {folder / 'last.ckpt'}" in printed
    run = json.loads((folder / "run.json").read_text())
    with open(folder / "metrics.csv", newline="") as file:
        cider = [float(row["val/cider"]) for row in csv.DictReader(file) if row["val/cider"]][-1]
    assert run["best_checkpoint"] is None
    assert run["metrics"]["val/cider"] == cider
    assert f"  cider                          {100 * cider:6.1f}" in printed


def test_a_run_without_checkpoints_and_captions_ends_with_its_loss(drop, capsys):
    folder = drop(*CAPTIONS, "gallery", "best", "last", **LOSS)
    assert "  loss " in capsys.readouterr().out
    assert not list(folder.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (CAPTIONS[:1], {}, "callbacks.scores needs callbacks.captions"),
        (CAPTIONS[:2], LOSS, "callbacks.bert_similarity needs"),
        (CAPTIONS, LOSS, "callbacks.gallery needs"),
        (["scores"], {}, "nothing logs monitor=val/cider"),
        (["bert_similarity"], {"monitor": "val/semantic"}, "nothing logs monitor=val/semantic"),
        ([], {"training": "risk", "monitor": "train/loss"}, "nothing logs monitor=train/loss"),
        ([], {"logger.csv": "null"}, "callbacks.learning_rate needs a logger"),
        ([], {"trainer.limit_val_batches": 0}, "without validation; it can be one of train/loss"),
        ([], {"trainer.max_epochs": 0}, "it is 1 or more"),
        ([], {"trainer.max_epochs": -1}, "or -1 with trainer.max_steps=N"),
        ([], {"trainer.max_steps": 0}, "trainer.max_steps=0: it is 1 or more"),
        ([], {"trainer.limit_train_batches": 0}, "trainer.limit_train_batches=0: it is"),
        ([], {"trainer.check_val_every_n_epoch": 0}, "it is 1 or more"),
        ([], {"trainer.max_time": "1h"}, "DD:HH:MM:SS"),
        ([], {"trainer.logger": "false"}, "trainer.logger is set by the program"),
        ([], {"training": "risk", "trainer.fast_dev_run": "true"}, "training=risk counts epochs"),
    ],
)
def test_a_missing_callback_is_an_error_before_images_are_encoded(drop, names, options, message):
    with pytest.raises(UserError, match=message):
        drop(*names, **options, **{"datamodule.features_root": "nowhere"})


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({"trainer.fast_dev_run": "true"}, set()),
        ({"trainer.enable_checkpointing": "false"}, set()),
        ({"trainer.max_steps": 1, "trainer.check_val_every_n_epoch": 3}, BOTH),
        ({"trainer.overfit_batches": 1}, BOTH),
        ({"trainer.limit_val_batches": 0, "monitor": "train/loss"}, BOTH),
        ({"trainer.limit_val_batches": 0.5}, BOTH),
        ({"trainer.max_epochs": -1, "trainer.max_steps": 3}, BOTH),
    ],
)
def test_a_run_with_an_option_of_lightning_ends_well(drop, capsys, options, files):
    options = {"trainer": "default", "trainer.max_epochs": 2, "datamodule.batch_size": 4} | options
    folder = drop("bert_similarity", **options)
    printed = capsys.readouterr().out
    assert {path.name for path in folder.glob("*.ckpt")} == files
    assert f"checkpoint: {folder / 'best.ckpt' if files else 'none'}\n" in printed
    assert ("  loss " in printed) == (options.get("trainer.limit_val_batches") != 0)
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "finished"
    assert (run["best_epoch"] is None) == (not files)
    assert run["history"][-1]["learning_rate"] < 1e-9


def test_overfitting_sees_the_same_batch_in_every_epoch(drop, monkeypatch):
    def recorded(self, batch, *_):
        if self.training:
            batches.append(batch.tokens.tolist())
        return loss(self, batch, *_)

    batches, loss = [], CaptioningModule._loss
    monkeypatch.setattr(CaptioningModule, "_loss", recorded)
    options = {"trainer": "default", "trainer.max_epochs": 3, "datamodule.batch_size": 4}
    drop("bert_similarity", **options, **{"trainer.overfit_batches": 1})
    assert len(batches) == 3
    assert batches[0] == batches[1] == batches[2]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_share_of_too_few_batches_is_a_sentence(drop, split):
    with pytest.raises(UserError, match=f"Try at least limit_{split}_batches="):
        drop("bert_similarity", **{"trainer": "default", f"trainer.limit_{split}_batches": 0.1})


def test_a_sweep_without_run_json_is_refused(drop, monkeypatch):
    monkeypatch.setattr("captioning.training.run.is_sweep_job", lambda: True)
    with pytest.raises(UserError, match=r"a sweep needs callbacks\.run_folder"):
        drop("run_folder", **{"datamodule.features_root": "nowhere"})
