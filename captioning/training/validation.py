"""Free-running captions of the validation images, made once an epoch for whoever asks.

A module and the data's validation pictures enter; `Generated` rows leave, for the scores, the
gallery and the log. Teacher forcing never makes a caption that is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.search.beam import Hypotheses
from captioning.search.rerank import NeighbourRerank, Rerank

Item = TypeVar("Item")


class Generated(NamedTuple):
    """A picture with its references, what the model says of it, and how that scores."""

    record: Record
    caption: str
    scores: dict[str, float]


class ValidationCaptions(pl.Callback):
    """Captions each validation image once, by `search(decoder, features)`, then `rerank`.

    The other callbacks call `ValidationCaptions.of(trainer)`; the first one to ask in an epoch
    starts the search. With several processes each captions its share and all get the whole.
    """

    def __init__(
        self,
        search: Callable[..., Hypotheses],
        rerank: NeighbourRerank | None = None,
        batch_size: int = 250,
    ):
        self.search = search
        self.rerank = rerank
        self.batch_size = batch_size
        self._generated: list[Generated] | None = None
        self._fitted: Rerank | None = None

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
        if self.rerank and not self._fitted:
            self._fitted = self.rerank.fit(
                data.splits["train"], data.store.get_features, data.vocabulary
            )
        captions = caption_records(
            decoder,
            data.vocabulary,
            data.store.get_features,
            mine,
            self.search,
            self._fitted,
            self.batch_size,
        )
        return [
            Generated(record, caption, {})
            for record, caption in zip(
                records, all_gather_interleaved(trainer, captions), strict=True
            )
        ]


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` of the items (or all, where there are fewer), evenly spaced, in order."""
    count = min(count, len(items))
    return [items[at * len(items) // count] for at in range(count)]


def share(trainer: pl.Trainer, rows: list) -> list:
    """Return the rows that this process works on."""
    return rows[trainer.global_rank :: trainer.world_size]


def all_gather_interleaved(trainer: pl.Trainer, mine: list) -> list:
    """Put what each process made of its share in the order of all rows again, for every process."""
    if trainer.world_size == 1:
        return mine
    shares: list = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, mine)
    rows = range(sum(map(len, shares)))
    return [shares[at % trainer.world_size][at // trainer.world_size] for at in rows]


def caption_records(
    decoder: nn.Module,
    vocabulary: Vocabulary,
    features_of: Callable[[list[Record]], Tensor],
    records: list[Record],
    search: Callable[..., Hypotheses],
    rerank: Rerank | None = None,
    batch_size: int = 250,
) -> list[str]:
    """Return the best caption of each picture, with a progress bar; dropout is off meanwhile."""
    was_training, device = decoder.training, next(decoder.parameters()).device
    decoder.eval()
    captions = []
    for start in tqdm(range(0, len(records), batch_size), desc="captioning", leave=False, delay=2):
        features = features_of(records[start : start + batch_size]).to(device)
        hypotheses = search(decoder, features)
        if rerank:
            hypotheses = rerank(hypotheses, features)
        captions += [vocabulary.decode(row) for row in hypotheses.tokens[:, 0].tolist()]
    decoder.train(was_training)
    return captions
