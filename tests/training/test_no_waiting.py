"""A training step never waits for the device: on a GPU, reading one number from it would."""

import pytest
import pytorch_lightning as pl
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.features.batches import Batch
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.models.transformer import TransformerDecoder
from captioning.models.updown import UpDownDecoder
from captioning.training.module import CaptioningModule

WORDS, FEATURE = 9, 4
WAITING = {"item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "nonzero"}


class Watch(pl.Callback, TorchFunctionMode):
    """Notes every call that waits, from a step's start to the end of its optimizer's update."""

    def __init__(self):
        super().__init__()
        self.watching, self.steps, self.waited = False, 0, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if self.watching and name in WAITING:
            self.waited.append(name)
        return function(*args, **(kwargs or {}))

    def on_train_batch_start(self, *_):
        self.watching, self.steps = True, self.steps + 1

    def on_train_batch_end(self, *_):
        self.watching = False


def fit(decoder, features):
    tokens = torch.tensor([[BOS, 5, 6, EOS], [BOS, 7, EOS, PAD]])
    batch = Batch(
        features, torch.tensor([0, 1]), torch.tensor([0, 1]), tokens, torch.tensor([0, 1, 2, 3, 4])
    )
    watch = Watch()
    trainer = pl.Trainer(
        max_epochs=1,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        gradient_clip_val=5.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    with watch:
        loader = DataLoader([batch] * 3, batch_size=None, collate_fn=lambda one: one)
        trainer.fit(CaptioningModule(decoder, {"vocabulary": []}), loader, loader)
    return watch


@pytest.mark.parametrize(
    ("decoder", "features"),
    [
        (LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=8), torch.randn(2, FEATURE)),
        (MergeDecoder(WORDS, FEATURE, hidden_dim=8), torch.randn(2, FEATURE)),
        (AttentionDecoder(WORDS, FEATURE, 8, 8), torch.randn(2, 3, FEATURE)),
        (UpDownDecoder(WORDS, FEATURE, 8, 8), torch.randn(2, 3, FEATURE)),
        (TransformerDecoder(WORDS, FEATURE, 8), torch.randn(2, 3, FEATURE)),
    ],
    ids=["lstm", "merge", "attention", "updown", "transformer"],
)
def test_a_step_reads_nothing_from_the_device(decoder, features):
    watch = fit(decoder, features)
    assert watch.steps == 3
    assert watch.waited == []


def test_the_watch_sees_what_waits():
    watch = Watch()
    watch.watching = True
    with watch:
        torch.ones(1).item()
    assert watch.waited == ["item"]
