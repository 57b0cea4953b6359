import logging
import random

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from captioning.training.resume import ExactResume, read_states, write_states


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_the_generators_are_restored_from_a_file(tmp_path):
    """Through a file that loads with weights_only, as checkpoints do."""
    torch.save(read_states(torch.device("cpu")), tmp_path / "states")
    drawn = [draw() for _ in range(3)]
    write_states(torch.load(tmp_path / "states", weights_only=True), torch.device("cpu"))
    assert [draw() for _ in range(3)] == drawn


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_checkpoint_of_another_number_of_processes_is_a_warning(tmp_path, fit, caplog):
    options = {"enable_checkpointing": True}
    fit(ModelCheckpoint(tmp_path, "last"), epochs=1, **options)
    with caplog.at_level(logging.WARNING, "captioning"):
        fit(ExactResume(), epochs=2, ckpt_path=tmp_path / "last.ckpt", **options)
    assert "states of 0 processes and this run has 1" in caplog.text
