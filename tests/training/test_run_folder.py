"""run.json and the log of a run."""

import json
import logging
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
import pytorch_lightning as pl
from composing import composed
from pytorch_lightning.callbacks import ModelCheckpoint

from captioning.data.records import Record
from captioning.training.best_checkpoint import BestCheckpoint
from captioning.training.run_folder import RunFolder, format_epoch, format_samples
from captioning.training.validation import Generated


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run_folder(folder):
    return RunFolder(str(folder), "val/cider")


def read(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


class SecondEpoch(pl.Callback):
    """Calls a function at the start of the second epoch."""

    def __init__(self, function):
        self.function = function

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.function()


def test_a_finished_run(folder, run_folder, fit):
    best, last = BestCheckpoint(str(folder), "val/cider"), ModelCheckpoint(folder, "last")
    trainer = fit(run_folder, last, best, enable_checkpointing=True)
    run = read(folder)
    assert run["status"] == "finished"
    assert (run["best_score"], run["best_epoch"]) == (1.25, 1)
    assert run["best_checkpoint"] == "best.ckpt" and (folder / "best.ckpt").exists()
    assert run["epochs"] == 2
    assert 0 < run["seconds_per_epoch"] <= run["seconds"]
    assert set(run["metrics"]) == {"train/loss", "val/loss", "val/cider", "learning_rate"}
    assert run["trained_parameters"] == 3
    with pytest.raises(FileNotFoundError):
        trainer.validate(ckpt_path="nowhere.ckpt")
    assert read(folder) == run  # what follows the fit is not part of it


def test_run_json_is_up_to_date_meanwhile(folder, run_folder, fit):
    runs = []
    best = BestCheckpoint(str(folder), "val/cider")
    fit(run_folder, best, SecondEpoch(lambda: runs.append(read(folder))), enable_checkpointing=True)
    assert (runs[0]["status"], runs[0]["epochs"], runs[0]["best_score"]) == ("running", 1, 0.25)


@pytest.mark.parametrize(
    ("error", "raised", "status", "reason"),
    [
        (RuntimeError("no memory"), RuntimeError, "failed", "RuntimeError: no memory"),
        (optuna.TrialPruned("worse"), optuna.TrialPruned, "pruned", None),
        (KeyboardInterrupt(), SystemExit, "interrupted", None),  # as Lightning ends after Ctrl-C
    ],
)
def test_a_run_that_ended_early(folder, run_folder, fit, error, raised, status, reason):
    def fail():
        raise error

    with pytest.raises(raised):
        fit(run_folder, SecondEpoch(fail))
    run = read(folder)
    assert (run["status"], run["epochs"], run.get("error")) == (status, 1, reason)
    assert (folder / "curves.png").exists()


def test_latest_leads_to_the_newest_run_that_has_a_checkpoint(
    folder, run_folder, fit, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    latest, sweep = Path("outputs/runs/latest"), Path("outputs/sweeps/latest")
    composed()
    fit(run_folder)
    assert not latest.is_symlink()  # nothing to lead to
    fit(
        RunFolder(str(folder), "val/cider"),
        ModelCheckpoint(folder, "last"),
        enable_checkpointing=True,
    )
    assert latest.resolve() == folder.resolve() and not sweep.is_symlink()
    before = latest.readlink()
    fit(RunFolder(str(tmp_path / "trial"), "val/cider"))
    (tmp_path / "trial" / "last.ckpt").touch()
    composed("data=scenes", config="tune")
    fit(RunFolder(str(tmp_path / "trial"), "val/cider"))
    assert latest.readlink() == before
    composed("hydra.job.num=0")
    fit(RunFolder(str(tmp_path / "trial"), "val/cider"))
    assert (sweep.resolve(), latest.readlink()) == (tmp_path.resolve(), before)
    composed()
    monkeypatch.setattr(Path, "symlink_to", Mock(side_effect=OSError(1, "not permitted")))
    fit(RunFolder(str(tmp_path / "trial"), "val/cider"))
    assert "outputs/runs/latest does not lead to this run: not permitted" in caplog.text


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_resumed_run_has_the_epochs_before(folder, run_folder, fit):
    options = {"enable_checkpointing": True}
    fit(run_folder, ModelCheckpoint(folder, "last"), epochs=1, **options)
    resumed = RunFolder(str(folder), "val/cider")
    fit(resumed, ckpt_path=folder / "last.ckpt", epochs=3)
    scores = {epoch: metrics["val/cider"] for epoch, metrics in resumed.history.items()}
    assert scores == {0: 0.25, 1: 1.25, 2: 2.25}
    assert read(folder)["epochs"] == 3


def test_each_epoch_is_logged_with_samples(run_folder, fit, caplog):
    with caplog.at_level(logging.INFO, "captioning"):
        fit(run_folder)
    logged = [each.getMessage() for each in caplog.records if each.name.startswith("captioning")]
    lines, tables = logged[::2], logged[1::2]
    assert [line.partition(":")[0] for line in lines] == ["epoch 0", "epoch 1"]
    assert lines[1].endswith("cider 125.0")
    assert tables[0] == tables[1]
    assert " ".join(tables[0].split()[4:12]) == "val-red.png a red square A red square ."


def test_an_epoch_s_line_holds_what_was_logged(added):
    metrics = {"train/loss": 2.91, "val/loss": 3.05, "val/cider": 0.45, "val/bleu4": 0.19}
    metrics |= {"val/bert_similarity": 0.55, "val/bert_similarity_rescaled": 0.61, "val/true": 0.93}
    assert format_epoch(3, metrics) == (
        "epoch 3: loss 2.91 / 3.05, cider 45.0, bleu4 19.0, "
        "bert_similarity 55.0 (61.0 rescaled), true 93.0"
    )
    metrics = {"val/loss": 3.0, "val/cider": 0.1, "val/letters": 12.0, "val/bleu1": 0.5}
    assert format_epoch(0, metrics) == "epoch 0: loss 3.00, letters 12.00, cider 10.0"
    metrics = {"train/reward": 0.781, "val/loss": 2.7}
    assert format_epoch(7, metrics) == "epoch 7: reward 78.1, loss 2.70"


def test_samples_are_an_aligned_and_shortened_table():
    record = Record("a.jpg", "a.jpg", ("A dog .",), "val")
    long = Generated(record._replace(image_id="bb.jpg", captions=()), "word " * 40, {})
    samples = [Generated(record, "a cat", {}), long]
    head, first, second = format_samples(samples).splitlines()
    assert head.index("caption") == first.index("a cat") == second.index("word")
    assert len(second) < 100
