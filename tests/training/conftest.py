"""A real fit of a tiny model that generates one fixed caption for each image."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from captioning.data.vocabulary import EOS, Vocabulary
from captioning.search.beam import Hypotheses
from captioning.training.validation import ValidationCaptions


class TinyModule(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(2, 1)
        self.frozen = nn.Linear(9, 9).requires_grad_(False)

    def training_step(self, batch):
        loss = self.decoder(batch).pow(2).mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch):
        self.log("val/loss", self.decoder(batch).pow(2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.decoder.parameters(), lr=0.1)


class TinyData(pl.LightningDataModule):
    """Four numbers to train on, and the images of `records` to caption."""

    def __init__(self, records, source=None):
        super().__init__()
        self.source = source
        self.splits = {"train": [], "val": [each for each in records if each.split == "val"]}
        self.store = self
        self.encoder = SimpleNamespace(identity={"name": "tiny"})
        self.vocabulary = Vocabulary.from_captions(["a red square"])

    def train_dataloader(self):
        return DataLoader(torch.ones(4, 2))

    val_dataloader = train_dataloader

    def get_features(self, records):
        return torch.zeros(len(records), 2)


class TinyScores(pl.Callback):
    """Gives the images scores 0, 1, 2 …, and logs a score per epoch, which grows if not given."""

    def __init__(self, scores=()):
        self.scores = dict(enumerate(scores))

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            for number, generated in enumerate(ValidationCaptions.of(trainer)):
                generated.scores["cider"] = float(number)
            epoch = trainer.current_epoch
            pl_module.log("val/cider", self.scores.get(epoch, 0.25 + epoch))


def search(decoder, features):
    """Return `a red square` for every image."""
    tokens = torch.tensor([[[4, 5, 6, EOS]]]).expand(len(features), 1, 4)
    return Hypotheses(tokens, torch.zeros(len(features), 1))


@pytest.fixture
def fit(tmp_path, records):
    """Return a function that trains with the given callbacks in `tmp_path` / "run"."""

    def run(*callbacks, epochs=2, ckpt_path=None, source=None, scores=(), **options):
        trainer = pl.Trainer(
            default_root_dir=tmp_path / "run",
            max_epochs=epochs,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            callbacks=[ValidationCaptions(search), TinyScores(scores), *callbacks],
            **{"logger": False, "enable_checkpointing": False, **options},
        )
        trainer.fit(TinyModule(), datamodule=TinyData(records, source), ckpt_path=ckpt_path)
        return trainer

    return run
