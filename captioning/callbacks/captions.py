"""Free-running captions of the validation images, made once an epoch for whoever asks.

A module and the data's validation pictures enter; `Generated` rows leave, for the scores, the
gallery and the log. Teacher forcing never makes a caption that is scored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioning.data.records import Record, UserError
from captioning.data.vocabulary import Vocabulary
from captioning.search.beam import Hypotheses
from captioning.search.neighbours import Neighbours


class Generated(NamedTuple):
    """A picture with its references, what the model says of it, and how that scores."""

    record: Record
    caption: str
    scores: dict[str, float]


class ValidationCaptions(pl.Callback):
    """Captions each validation image once, by `search(decoder, features)`.

    The other callbacks call `ValidationCaptions.of(trainer)`; the first one to ask in an epoch
    starts the search. With several processes each captions its share and all get the whole.
    """

    def __init__(self, search: Callable[..., Hypotheses], batch_size: int = 250):
        self.search = search
        self.batch_size = batch_size
        self._generated: list[Generated] | None = None
        self._among: Callable[..., Hypotheses] | None = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the captions of the epoch before."""
        self._generated = None

    @staticmethod
    def of(trainer: pl.Trainer) -> list[Generated]:
        """Return this epoch's captions of the validation images, in the data's order."""
        for callback in trainer.callbacks:
            if isinstance(callback, ValidationCaptions):
                if callback._generated is None:
                    callback._generated = callback._generate(trainer)
                return callback._generated
        raise UserError("scores need callbacks.captions; leave it in the callbacks' config")

    def _generate(self, trainer: pl.Trainer) -> list[Generated]:
        data = trainer.datamodule
        records = data.splits["val"]
        limit = trainer.limit_val_batches
        if isinstance(limit, int):
            records = records[: limit * self.batch_size]
        if trainer.world_size > 1 and len(records) < 2 * trainer.world_size:
            raise UserError(
                f"{len(records)} validation pictures are too few for {trainer.world_size} "
                "processes, which need two each; type trainer.devices=1"
            )
        mine = share(trainer, records)
        decoder = trainer.lightning_module.decoder
        if self._among is None:
            training = data.splits["train"]
            self._among = among(self.search, training, data.features, data.vocabulary)
        captions = caption_records(
            decoder, data.vocabulary, data.features, mine, self._among, self.batch_size
        )
        return [
            Generated(record, caption, {})
            for record, caption in zip(records, gathered(trainer, captions), strict=True)
        ]


def share(trainer: pl.Trainer, rows: list) -> list:
    """Return the rows that this process works on."""
    return rows[trainer.global_rank :: trainer.world_size]


def gathered(trainer: pl.Trainer, mine: list) -> list:
    """Put what each process made of its share in the order of all rows again, for every process."""
    if trainer.world_size == 1:
        return mine
    shares: list = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, mine)
    rows = range(sum(map(len, shares)))
    return [shares[at % trainer.world_size][at // trainer.world_size] for at in rows]


def among(
    search: Callable[..., Hypotheses],
    training: list[Record],
    features_of: Callable[[list[Record]], Tensor],
    vocabulary: Vocabulary,
) -> Callable[..., Hypotheses]:
    """Return the search, told of the training pictures where it is one that asks for them."""
    if isinstance(search, Neighbours):
        return search.among(training, features_of, vocabulary)
    return search


def caption_records(
    decoder: nn.Module,
    vocabulary: Vocabulary,
    features_of: Callable[[list[Record]], Tensor],
    records: list[Record],
    search: Callable[..., Hypotheses],
    batch_size: int = 250,
) -> list[str]:
    """Return the best caption of each picture, with a progress bar; dropout is off meanwhile."""
    was_training, device = decoder.training, next(decoder.parameters()).device
    decoder.eval()
    captions = []
    for start in tqdm(range(0, len(records), batch_size), desc="captioning", leave=False, delay=2):
        features = features_of(records[start : start + batch_size]).to(device)
        tokens = search(decoder, features).tokens[:, 0]
        captions += [vocabulary.decode(row) for row in tokens.tolist()]
    decoder.train(was_training)
    return captions
