"""Captions of the validation images; test_processes.py has the scores of several processes."""

import pytest
import pytorch_lightning as pl
import torch
from training.conftest import TinyData, search

from captioning import UserError
from captioning.training.validation import (
    LastStep,
    ValidationCaptions,
    all_gather_interleaved,
    evenly_spaced,
    take_share,
)


class Process(pl.Trainer):
    """The attributes of a trainer that are read, of one of several processes."""

    callbacks = datamodule = global_rank = world_size = None
    limit_val_batches = 1.0

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_gathered_shares_are_all_rows_in_order(monkeypatch, world_size):
    rows = list(range(7))
    processes = [Process(global_rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [take_share(process, rows) for process in processes]

    def all_gather_object(gathered, local):
        gathered[:] = shares

    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    for process, local in zip(processes, shares, strict=True):
        assert all_gather_interleaved(process, local) == rows


def test_fewer_images_than_two_a_process_are_an_error(records):
    captions = ValidationCaptions(search)
    process = Process(callbacks=[captions], datamodule=TinyData(records), world_size=3)
    with pytest.raises(UserError, match=r"type trainer\.devices=1"):
        ValidationCaptions.of(process)


def test_scores_without_captions_are_an_error():
    with pytest.raises(UserError, match=r"callbacks\.captions"):
        ValidationCaptions.of(Process(callbacks=[]))


@pytest.mark.parametrize(
    ("options", "stop", "validated"),
    [
        ({"check_val_every_n_epoch": 3}, None, [12, 20]),
        ({"check_val_every_n_epoch": 3}, 2, [2]),
        ({"check_val_every_n_epoch": 3, "max_steps": 14}, None, [12, 14]),
        ({"val_check_interval": 3, "max_steps": 8}, None, [3, 7, 8]),
        ({"check_val_every_n_epoch": None, "val_check_interval": 7}, None, [7, 14, 20]),
    ],
)
def test_the_last_step_is_validated_though_it_is_not_due(fit, options, stop, validated):
    class Stopper(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == stop

    class Recorder(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            steps.append(trainer.global_step)

    steps = []
    fit(Stopper(), LastStep(), Recorder(), epochs=5, num_sanity_val_steps=0, **options)
    assert steps == validated


@pytest.mark.parametrize(("count", "chosen"), [(3, [0, 3, 6]), (99, list(range(10))), (0, [])])
def test_items_are_evenly_spaced_and_in_order(count, chosen):
    assert evenly_spaced(range(10), count) == chosen
