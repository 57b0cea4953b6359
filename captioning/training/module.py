"""The LightningModule: a decoder, its loss, its optimizer and its schedule.

The frozen encoder is not inside, so that a checkpoint holds only what was trained.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from captioning import UserError
from captioning.checkpoint import FORMAT_VERSION, upgrade
from captioning.features.batches import Batch
from captioning.models.decoder import Decoder
from captioning.models.loss import word_loss


class CaptioningModule(pl.LightningModule):
    """Teacher forcing with AdamW, linear warm-up and a cosine schedule to zero.

    `warmup` is a share of all steps; without `cosine` the rate stays after it. `contents`
    (vocabulary, resolved config, encoder identity) is stored in every checkpoint.
    """

    def __init__(
        self,
        decoder: Decoder,
        contents: dict[str, Any],
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        label_smoothing: float = 0.1,
        cosine: bool = True,
    ):
        super().__init__()
        self.decoder = decoder
        self.contents = contents
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.label_smoothing = label_smoothing
        self.cosine = cosine

    def training_step(self, batch: Batch) -> Tensor:
        """Return the mean smoothed cross entropy per word, in nats."""
        loss, words = self._loss(batch, self.label_smoothing), len(batch.target_positions)
        self._log_epoch_mean("train/loss", loss, words)
        return scale_by_word_share(loss, words)

    def validation_step(self, batch: Batch) -> None:
        """Log the teacher-forced cross entropy per word, without smoothing."""
        self._log_epoch_mean("val/loss", self._loss(batch), len(batch.target_positions))

    def _log_epoch_mean(self, key: str, value: Tensor, count: int | float) -> None:
        """Log a batch's mean over `count` words or images; an epoch's is over all of them."""
        options = {"prog_bar": True, "on_step": False, "on_epoch": True, "sync_dist": True}
        # A float, as Lightning 2.6.6 rounds means of whole numbers down.
        self.log(key, value, batch_size=float(count), **options)

    def on_fit_start(self) -> None:
        """Give each process its own dropout: all were seeded alike."""
        if self.trainer.global_rank:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def on_validation_start(self) -> None:
        """Average the processes' batch norm statistics, so that all validate the same model."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))

    def _loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross entropy per word in nats.

        Each image is projected once for all of its captions, and `<pad>` gets no logits.
        """
        state = self.decoder.begin(batch.features)
        state = tuple(part.index_select(0, batch.image_index) for part in state)
        hidden, _ = self.decoder.decode(batch.tokens[:, :-1], state)
        hidden = hidden.flatten(0, 1).index_select(0, batch.target_positions)
        targets = batch.tokens[:, 1:].flatten()[batch.target_positions]
        return word_loss(hidden, self.decoder.output, targets, label_smoothing)

    def configure_optimizers(self) -> dict[str, Any]:
        """Make AdamW, which decays matrices but no biases and norms, and the schedule."""
        matrices = [weight for weight in self.decoder.parameters() if weight.dim() > 1]
        others = [weight for weight in self.decoder.parameters() if weight.dim() <= 1]
        uses_grad_scaler = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=not uses_grad_scaler,
        )
        # Or Lightning clips no gradients: a fused optimizer can unscale them itself.
        optimizer._step_supports_amp_scaling = False
        total = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = LambdaLR(optimizer, lambda step: self.lr_factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Follow this config's schedule, where a checkpoint restored its own."""
        if self.trainer.ckpt_path:
            schedule = self.lr_schedulers()
            matrices, others = schedule.optimizer.param_groups
            schedule.base_lrs = [self.learning_rate] * 2
            rate = self.learning_rate * schedule.lr_lambdas[0](schedule.last_epoch)
            matrices.update(lr=rate, weight_decay=self.weight_decay)
            others.update(lr=rate)

    def lr_factor(self, step: int, total: int) -> float:
        """Return the factor on the learning rate: 0 → 1 in the warm-up, then a cosine to 0."""
        warmup = round(self.warmup * total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if not self.cosine:
            return 1.0
        progress = (step - warmup) / max(1, total - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a machine without this run's folder needs to caption an image."""
        checkpoint["captioning"] = {"format_version": FORMAT_VERSION, **self.contents}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Convert an older format. Refuse to go on from a checkpoint of another vocabulary."""
        stored = checkpoint["captioning"]["vocabulary"]
        vocabulary = self.contents["vocabulary"]
        if stored != vocabulary:
            raise UserError(
                f"the checkpoint has a vocabulary of {len(stored)} words, this run one of "
                f"{len(vocabulary)}: use the data and datamodule.min_count that it was trained with"
            )
        upgrade(checkpoint)


def scale_by_word_share(loss: Tensor, count: int | float) -> Tensor:
    """Scale this rank's loss by its words x world_size / all words.

    So DDP's mean of the gradients is that of the mean over all words. `count` is of words, or of
    images where the loss is a mean over them.
    """
    if not torch.distributed.is_initialized():
        return loss
    total = torch.full((), float(count), device=loss.device)  # without a copy from the host
    torch.distributed.all_reduce(total)
    return loss * (count * torch.distributed.get_world_size() / total)
