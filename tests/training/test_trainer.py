"""Lightning's bar in a terminal, and lines in its place in a log file."""

import io
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl

from captioning.data import progress
from captioning.training.trainer import LogProgress, build_callbacks

CONFIG = {
    "callbacks": {"progress": {"_target_": "pytorch_lightning.callbacks.TQDMProgressBar"}},
    "training": {},
    "trainer": {},
    "data": {"_target_": "captioning.data.scenes.Scenes"},
    "monitor": "val/loss",
}


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_is_for_terminals(monkeypatch, is_terminal):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: is_terminal))
    (callback,) = build_callbacks(CONFIG)
    assert isinstance(callback, LogProgress) != is_terminal


@pytest.mark.parametrize("seconds", [60, 1e-9])
def test_batches_are_counted_in_whole_lines(monkeypatch, seconds):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "SECONDS", seconds)
    callback = LogProgress()
    trainer = Mock(spec=pl.Trainer, num_training_batches=2, max_epochs=2, is_global_zero=True)
    trainer.fit_loop = Mock(total_batch_idx=0)  # resumed after the first
    callback.on_train_start(trainer, None)
    for _ in range(3):
        callback.on_train_batch_end(trainer, None)
    lines = sys.stderr.getvalue().splitlines()
    counts = [line.split(" after ")[0] for line in lines]
    expected = [f"training, batches: {done} of 4" for done in (2, 3, 4)]
    assert counts == ([] if seconds == 60 else expected)
