"""Captions of the validation images, made once per epoch by free-running search.

Scores, gallery and log share them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from captioning import UserError
from captioning.data.progress import progress_bar
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.search.beam import Hypotheses
from captioning.search.rerank import NeighbourRerank, Rerank

Item = TypeVar("Item")
Callback = TypeVar("Callback", bound=pl.Callback)


class Generated(NamedTuple):
    """An image with its references, the generated caption, and the caption's scores."""

    record: Record
    caption: str
    scores: dict[str, float]


class LastStep(pl.Callback):
    """Validates after the last step, wherever in an epoch trainer.max_steps or max_time ends.

    Checkpoints are written after validations: what is learned after the last one would be lost.
    """

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Make the last step due for validation."""
        is_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if (
            trainer.should_stop  # by a callback before this one, such as Timer
            or trainer.global_step == trainer.max_steps
            or (is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs)
        ):
            trainer.should_stop = True
            validate_this_epoch(trainer)


def validate_this_epoch(trainer: pl.Trainer) -> None:
    """Make the end of the epoch, at its last step, due for validation and a checkpoint."""
    if trainer.check_val_every_n_epoch:
        trainer.check_val_every_n_epoch = 1


class ValidationCaptions(pl.Callback):
    """Captions each validation image once, by `search(decoder, features)`, then `rerank`.

    The first call of `ValidationCaptions.of(trainer)` in an epoch starts the search. With several
    processes each captions its share and all get the whole.
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
        """Drop the captions of the epoch before."""
        self._generated = None

    @staticmethod
    def of(trainer: pl.Trainer) -> list[Generated]:
        """Return this epoch's captions of the validation images, in the data's order.

        Collective: every process has to call it.
        """
        callback = find_callback(trainer, ValidationCaptions)
        if callback is None:
            raise UserError("scores need callbacks.captions; leave it in the callbacks' config")
        if callback._generated is None:
            callback._generated = callback._generate(trainer)
        return callback._generated

    def _generate(self, trainer: pl.Trainer) -> list[Generated]:
        data = trainer.datamodule
        records = data.splits["val"]
        limit = trainer.limit_val_batches
        images = limit * self.batch_size if isinstance(limit, int) else round(limit * len(records))
        records = records[: max(2, images)]
        if trainer.world_size > 1 and len(records) < 2 * trainer.world_size:
            raise UserError(
                f"{len(records)} validation images are too few for {trainer.world_size} "
                "processes, which need two each; type trainer.devices=1"
            )
        if self.rerank and not self._fitted:
            self._fitted = self.rerank.fit(data.splits["train"], data.store, data.vocabulary)
        local = caption_records(
            trainer.lightning_module.decoder,
            data.vocabulary,
            data.store.get_features,
            take_share(trainer, records),
            self.search,
            self._fitted,
            self.batch_size,
        )
        captions = all_gather_interleaved(trainer, local)
        return [Generated(*pair, {}) for pair in zip(records, captions, strict=True)]


def find_callback(trainer: pl.Trainer, kind: type[Callback]) -> Callback | None:
    """Return the trainer's first callback of a class; None if it has none."""
    return next((each for each in trainer.callbacks if isinstance(each, kind)), None)


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` of the items (or all, if there are fewer), evenly spaced, in order."""
    count = min(count, len(items))
    return [items[at * len(items) // count] for at in range(count)]


def take_share(trainer: pl.Trainer, rows: list) -> list:
    """Return the rows that this process works on: every `world_size`-th."""
    return rows[trainer.global_rank :: trainer.world_size]


def all_gather_interleaved(trainer: pl.Trainer, local: list) -> list:
    """Gather the results of every process's `take_share`, in the order of all rows."""
    if trainer.world_size == 1:
        return local
    shares: list = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, local)
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
    """Return the best caption of each image, made in eval mode, with a progress bar."""
    was_training, device = decoder.training, next(decoder.parameters()).device
    decoder.eval()
    captions = []
    starts = range(0, len(records), batch_size)
    for start in progress_bar(starts, "captioning", leave=False, delay=2):
        features = features_of(records[start : start + batch_size]).to(device)
        hypotheses = search(decoder, features)
        if rerank:
            hypotheses = rerank(hypotheses, features)
        captions += [vocabulary.decode(row) for row in hypotheses.tokens[:, 0].tolist()]
    decoder.train(was_training)
    return captions
