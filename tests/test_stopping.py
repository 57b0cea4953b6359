"""The same seed gives the same run to the last bit, and so does a run that was stopped and resumed.

What goes wrong is a sentence, and nothing is lost.
"""

import csv
import errno
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from composing import composed
from verbs import TINY

from captioning import UserError, replay
from captioning.checkpoint import read_checkpoint
from captioning.config.cli import disk_errors
from captioning.config.compose import resolve_config
from captioning.features.batches import Batch
from captioning.search.beam import greedy_search
from captioning.training import fit, minimum_risk, safety
from captioning.training.module import CaptioningModule
from captioning.training.run import train
from captioning.training.validation import ValidationCaptions

pytestmark = pytest.mark.slow
OPTIONS = [*TINY, "data.root=data", "callbacks.bert_similarity=null", "search=greedy"]
OPTIONS += ["datamodule.batch_size=4", "trainer.max_epochs=2", "ckpt_path=last"]


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Return a function that trains two epochs of two batches in a folder, or resumes there.

    It gives the last weights and the rows of metrics.csv.
    """
    monkeypatch.chdir(folder)

    def started(name, *options):
        path = tmp_path / name
        train(resolve_config(composed(*OPTIONS, *options, f"run_dir={path}")))
        weights = read_checkpoint(path / "last.ckpt")["state_dict"]
        with open(path / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return {key: value.tolist() for key, value in weights.items()}, rows

    return started


@pytest.fixture
def uninterrupted(run, request):
    """Return a function that trains without a stop, once for all tests with the same options."""
    cache = request.module.__dict__.setdefault("RUNS", {})

    def started(*options):
        if options not in cache:
            cache[options] = run("uninterrupted", *options)
        return cache[options]

    return started


@pytest.fixture
def at_loss(monkeypatch):
    """Return a function that arranges an action at the n-th loss of training or validation.

    What the action returns takes the place of the loss.
    """
    loss = CaptioningModule._loss

    def arrange(stage, number, action):
        calls = []

        def replaced(self, batch, *options):
            result = None
            if self.training == (stage == "training"):
                calls.append(1)
                result = action() if len(calls) == number else None
            return loss(self, batch, *options) if result is None else result

        monkeypatch.setattr(CaptioningModule, "_loss", replaced)

    return arrange


def terminate(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_the_same_seed_gives_the_same_run(run):
    first = run("one")
    assert run("two") == first
    assert run("three", "seed=1") != first


# An epoch has two batches, of training as of validation.
MOMENTS = [("training", 1), ("training", 2), ("training", 3), ("training", 4)]
MOMENTS += [("validation", 1), ("validation", 2), ("validation", 3)]


@pytest.mark.parametrize(
    ("number", "stage", "call"),
    [*((signal.SIGTERM, *moment) for moment in MOMENTS), (signal.SIGUSR1, "training", 3)],
)
def test_a_terminated_run_is_resumed_exactly(
    run, uninterrupted, at_loss, capsys, number, stage, call
):
    expected = uninterrupted()
    at_loss(stage, call, lambda: terminate(number))
    with pytest.raises(SystemExit) as stop:
        run("stopped")
    assert stop.value.code == 143
    printed = capsys.readouterr().err
    assert "stopped and saved:\n  python -m" in printed
    assert "ckpt_path=last" in printed.split()
    assert run("stopped") == expected


@pytest.mark.parametrize("call", [2, 4, 5])
def test_a_run_that_is_seldom_validated_is_saved_when_it_is_stopped(
    run, uninterrupted, at_loss, tmp_path, call
):
    options = ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4"]
    weights, _ = uninterrupted(*options)
    at_loss("training", call, terminate)
    with pytest.raises(SystemExit):
        run("stopped", *options)
    assert read_checkpoint(tmp_path / "stopped/last.ckpt")["global_step"] == call
    assert run("stopped", *options)[0] == weights


@pytest.mark.parametrize("every", [None, 3, 4])
def test_a_crashed_run_is_resumed_exactly(run, uninterrupted, at_loss, tmp_path, every):
    """In its second epoch of four steps; from the end of the first, or two steps after."""
    options = ["datamodule.batch_size=2", "trainer.max_epochs=3"]
    options += [f"+callbacks.last.every_n_train_steps={every}"] if every else []
    weights, rows = uninterrupted(*options)

    def crash():
        raise OSError("the machine goes down")

    at_loss("training", 8, crash)
    with pytest.raises(OSError, match="goes down"):
        run("stopped", *options)
    saved = read_checkpoint(tmp_path / "stopped/last.ckpt")["global_step"]
    assert saved == (6 if every == 3 else 4)
    resumed = run("stopped", *options)
    assert resumed[0] == weights
    if every != 4:  # saved after an epoch's last step, before the epoch's metrics were known
        assert resumed[1] == rows


def test_a_run_with_minimum_risk_is_resumed_exactly(run, monkeypatch):
    options = ["training=risk", "training.risk_epochs=1"]
    expected = run("uninterrupted", *options)
    keys = [key for row in expected[1] for key in ("train/loss", "train/reward") if row[key]]
    assert keys == ["train/loss", "train/reward"]
    reward = minimum_risk.expected_reward

    def terminated(*arguments):
        monkeypatch.setattr(minimum_risk, "expected_reward", reward)
        terminate()
        return reward(*arguments)

    monkeypatch.setattr(minimum_risk, "expected_reward", terminated)
    with pytest.raises(SystemExit):
        run("stopped", *options)
    assert run("stopped", *options) == expected


def test_a_loss_that_is_not_finite_leaves_its_batch(run, at_loss):
    at_loss("training", 3, lambda: torch.tensor(float("nan"), requires_grad=True))
    message = r"the loss is nan in epoch 1, step 2.*learning_rate.*captioning\.replay"
    with pytest.raises(UserError, match=message) as error:
        run("nan")
    path = re.search(r"captioning\.replay (\S+)", str(error.value))[1]
    printed = replay.replay(Path(path))
    assert "epoch 1, step 2: loss nan" in printed
    assert "neither features nor weights" in printed
    assert re.search(r"in float32, without dropout: \d", printed)


@pytest.mark.parametrize(
    ("limit", "batch_size", "advice"),
    [
        (3, 4, r"datamodule\.batch_size=2 fits, tried with the longest captions; python .*=2 "),
        (3, 1000, r"datamodule\.batch_size=2 fits, .*; python .* datamodule\.batch_size=2 "),
        (1, 4, r"no smaller batch fits: shorten the longest captions or take a smaller model$"),
    ],
)
def test_out_of_memory_names_the_batch_size_that_fits(run, monkeypatch, limit, batch_size, advice):
    loss, tried = CaptioningModule._loss, []

    def limited(self, batch, *options):
        tried.append(len(batch.tokens))
        if len(batch.tokens) > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …")
        return loss(self, batch, *options)

    monkeypatch.setattr(CaptioningModule, "_loss", limited)
    with pytest.raises(UserError, match=rf"out of memory.*{advice}") as error:
        run("large", f"datamodule.batch_size={batch_size}")
    assert f"batch_size={batch_size} " not in str(error.value)
    assert len(tried) > 1 and max(tried[1:]) < tried[0]


def test_out_of_memory_of_minimum_risk_tries_minimum_risk(run, monkeypatch):
    reward, tried = minimum_risk.expected_reward, []

    def limited(decoder, features, *arguments):
        tried.append(len(features))
        if len(tried) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …")
        return reward(decoder, features, *arguments)

    monkeypatch.setattr(minimum_risk, "expected_reward", limited)
    with pytest.raises(UserError, match=r"out of memory.*datamodule\.batch_size=2 fits"):
        run("large", "training=risk", "training.risk_epochs=1")
    assert len(tried) == 2


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("resident", [True, False])
def test_out_of_memory_is_not_tried_between_steps_or_by_one_process_of_two(
    monkeypatch, in_batch, resident
):
    monkeypatch.setattr(safety, "largest_fitting_batch", lambda *_: pytest.fail("tried"))
    module = Mock(spec=CaptioningModule, device="cuda:1")
    data = SimpleNamespace(batch_size=128, resident=resident)
    callbacks = [ValidationCaptions(greedy_search, batch_size=50)]
    trainer = Mock(spec=pl.Trainer, datamodule=data, callbacks=callbacks, world_size=2)
    callback = safety.OutOfMemory()
    if in_batch:
        callback.on_train_batch_start(trainer, module, Mock(spec=Batch), 0)
    callback.on_exception(trainer, module, torch.OutOfMemoryError("CUDA out of memory."))
    expected = "datamodule.resident=false" if resident else "callbacks.captions.batch_size=25"
    expected = "datamodule.batch_size=64" if in_batch else expected
    assert callback.override == expected
    reason = "cuda:1 is out of memory (CUDA out of memory.)"
    assert callback.advice == f"{reason}; {expected} takes less"


def test_out_of_memory_of_a_sweeps_job_names_another_sweep():
    callback = Mock(spec=safety.OutOfMemory, advice="out of memory; A=1 fits", override="A=1")
    trainer = Mock(spec=pl.Trainer, callbacks=[callback], default_root_dir=".")
    trainer.fit.side_effect = MemoryError
    module, data = pl.LightningModule(), pl.LightningDataModule()
    with pytest.raises(UserError, match=r"^out of memory; A=1 fits; type A=1 name=NEW$"):
        fit.fit(trainer, module, data, None, lambda: "the same command")


def test_out_of_memory_of_a_validation_is_tried_in_training_mode(run, monkeypatch):
    loss, modes = CaptioningModule._loss, []

    def limited(self, batch, *options):
        if not self.training:
            raise MemoryError
        modes.append(self.decoder.training)
        return loss(self, batch, *options)

    monkeypatch.setattr(CaptioningModule, "_loss", limited)
    with pytest.raises(UserError, match=r"out of memory.*datamodule\.batch_size=\d fits"):
        run("validation")
    assert all(modes)


def test_a_dead_data_worker_is_a_sentence(run, at_loss):
    def die():
        raise RuntimeError("DataLoader worker (pid(s) 123) exited unexpectedly")

    at_loss("training", 2, die)
    with pytest.raises(UserError, match="a DataLoader worker died"):
        run("dead")


def test_a_disk_too_small_for_checkpoints_is_an_error_before_training(run, at_loss, monkeypatch):
    full = fit.shutil.disk_usage("/")._replace(free=1)
    monkeypatch.setattr(fit.shutil, "disk_usage", lambda folder: full)
    at_loss("training", 1, lambda: pytest.fail("it trained"))
    with pytest.raises(UserError, match=r"checkpoints of .* weights take"):
        run("small")


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.ENAMETOOLONG]
)
def test_an_error_of_the_disk_is_a_sentence(number):
    message = r"x/last\.ckpt: .*then the same command goes on"
    with pytest.raises(UserError, match=message), disk_errors(lambda: "the same command"):
        raise OSError(number, os.strerror(number), "x/last.ckpt")
    with pytest.raises(FileNotFoundError), disk_errors(lambda: "the same command"):
        raise FileNotFoundError(errno.ENOENT, "not the disk's", "x")
