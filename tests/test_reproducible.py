"""The same seed gives the same numbers to the last bit; a stopped run goes on as if it had not."""

import csv

import numpy as np
import pytest
import torch
from composing import composed
from verbs import TINY

from captioning.captioner import read_checkpoint
from captioning.train import train
from captioning.training.module import CaptioningModule

pytestmark = pytest.mark.slow
STEPS = 4  # an epoch


@pytest.fixture
def fit(folder, tmp_path, monkeypatch):
    """Return a function that trains three epochs; gives each step's loss and random numbers."""
    monkeypatch.chdir(folder)
    step = CaptioningModule.training_step

    def run(name, *options, stop=None):
        seen = {}

        def watched(self, batch):
            if self.global_step == stop:
                raise OSError("the machine goes down")
            loss = step(self, batch)
            # Not Python's: beartype, which checks shapes in tests, draws from it too.
            seen[self.global_step] = (loss.item(), np.random.rand(), torch.rand(()).item())
            return loss

        monkeypatch.setattr(CaptioningModule, "training_step", watched)
        options = ["datamodule.batch_size=2", "trainer.max_epochs=3", *options]
        cfg = composed(*TINY, "data.root=data", f"run_dir={tmp_path / name}", *options)
        try:
            train(cfg)
        except OSError:
            assert stop
        return seen, tmp_path / name / "last.ckpt"

    return run


def weights(path):
    return read_checkpoint(path)["state_dict"]


def assert_equal(path, other):
    for key, weight in weights(path).items():
        assert torch.equal(weight, weights(other)[key]), key


def test_the_same_seed_gives_the_same_run(fit):
    losses, last = fit("one")
    again, other = fit("two")
    assert len(losses) == 3 * STEPS
    assert losses == again
    assert_equal(last, other)
    different, _ = fit("three", "seed=1")
    assert different[0] != losses[0]


@pytest.mark.parametrize("every", [None, 3, STEPS])
def test_a_run_that_was_stopped_goes_on_as_if_not(fit, every):
    """Stopped in the second epoch, it goes on from its start or from the third step before."""
    option = [f"callbacks.last.every_n_train_steps={every}"] if every else []
    if every:
        option = ["+" + option[0]]
    straight, last = fit("straight", *option)
    before, _ = fit("stopped", *option, stop=7)
    after, other = fit("stopped", *option, f"ckpt_path={last.parents[1]}/stopped/last.ckpt")
    assert sorted(before) == list(range(7))
    assert min(after) == (6 if every == 3 else 4)
    assert after == {step: straight[step] for step in after}
    assert before | after == straight
    assert_equal(last, other)


def test_a_run_that_was_stopped_before_its_last_part_goes_on_as_if_not(fit):
    options = ["training=risk", "training.risk_epochs=1"]
    straight, last = fit("straight", *options)
    fit("stopped", *options, stop=5)
    _, other = fit("stopped", *options, f"ckpt_path={last.parents[1]}/stopped/last.ckpt")
    assert sorted(straight) == list(range(2 * STEPS))  # then there is no cross entropy any more
    assert_equal(last, other)
    with (last.parent / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    said = [key for row in rows for key in ("train/loss", "train/reward") if row[key]]
    assert said == ["train/loss", "train/loss", "train/reward"]
