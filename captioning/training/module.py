"""The LightningModule: a decoder, its loss, its optimizer and its schedule; nothing else.

Batches of features and tokens enter; losses leave. The frozen encoder is not inside, so a
checkpoint holds what was trained, and `contents` beside it: all that captioning needs.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.utilities.enums import GradClipAlgorithmType
from torch import Tensor

from captioning import UserError
from captioning.features.batches import Batch
from captioning.models.decoder import Decoder
from captioning.models.loss import word_loss

FORMAT_VERSION = 1


class CaptioningModule(pl.LightningModule):
    """Teacher forcing with AdamW, linear warm-up and a cosine to zero.

    `warmup` is a share of all steps; without `cosine` the rate stays after it. `contents` (plain
    types: vocabulary, resolved config, encoder identity) goes into every checkpoint under the key
    `captioning`.
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
        """Return the mean smoothed cross entropy a word, in nats."""
        loss = self._loss(batch, self.label_smoothing)
        self.log(
            "train/loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=float(len(batch.target_positions)),
            sync_dist=True,
        )
        return self._for_the_mean(loss, len(batch.target_positions))

    def validation_step(self, batch: Batch) -> None:
        """Log the teacher-forced cross entropy a word, without smoothing."""
        loss = self._loss(batch)
        # A float: Lightning 2.6.6 rounds the mean of whole numbers over processes down.
        words = float(len(batch.target_positions))
        self.log("val/loss", loss, prog_bar=True, batch_size=words, sync_dist=True)

    def _for_the_mean(self, loss: Tensor, count: int | float) -> Tensor:
        """Weigh a process's loss so that the mean over processes is the mean over what they count.

        Gradients of all processes weigh the same, though one may have more words, or images.
        """
        if not torch.distributed.is_initialized():
            return loss
        total = torch.tensor(float(count), device=loss.device)
        torch.distributed.all_reduce(total)
        return loss * (count * torch.distributed.get_world_size() / total)

    def on_fit_start(self) -> None:
        """Give each process a dropout of its own: all were seeded alike."""
        if self.trainer.global_rank:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def on_validation_start(self) -> None:
        """Let all processes validate the same model: each has batch norm statistics of its own."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))

    def _loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross entropy a word in nats, of the logits that `forward` makes.

        But each picture is looked at once for all of its captions, and `<pad>` gets no logits.
        """
        state = tuple(
            part.index_select(0, batch.image_index) for part in self.decoder.begin(batch.features)
        )
        hidden, _ = self.decoder.decode(batch.tokens[:, :-1], state)
        said = hidden.flatten(0, 1).index_select(0, batch.target_positions)
        targets = batch.tokens[:, 1:].flatten()[batch.target_positions]
        return word_loss(said, self.decoder.output, targets, label_smoothing)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; matrices decay, biases and norms do not."""
        matrices = [weight for weight in self.decoder.parameters() if weight.dim() > 1]
        others = [weight for weight in self.decoder.parameters() if weight.dim() <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=not self._scales(),
        )
        total = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.factor(step, total)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def factor(self, step: int, total: int) -> float:
        """Return the factor on the learning rate at a step of the `total`."""
        return warmup_cosine(step, total, round(self.warmup * total), self.cosine)

    def _scales(self) -> bool:
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says; Lightning's own refuses a fused optimizer under bf16-mixed.

        It need not: without a scaler (16-mixed has one) gradients are what they seem.
        """
        options = (
            gradient_clip_val or 0.0,
            GradClipAlgorithmType(gradient_clip_algorithm or "norm"),
        )
        if self._scales():
            self.clip_gradients(optimizer, *options)
        else:
            Precision.clip_gradients(self.trainer.precision_plugin, optimizer, *options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a machine without this run's folder needs to caption a picture."""
        checkpoint["captioning"] = {"format_version": FORMAT_VERSION, **self.contents}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a checkpoint of another vocabulary."""
        theirs = checkpoint.get("captioning", {}).get("vocabulary", [])
        ours = self.contents["vocabulary"]
        if theirs != ours:
            raise UserError(
                f"the checkpoint has a vocabulary of {len(theirs)} words, this run one of "
                f"{len(ours)}: they were made from other captions or another "
                "datamodule.min_count; train from the start or use the checkpoint's own data"
            )


def warmup_cosine(step: int, total: int, warmup: int, cosine: bool = True) -> float:
    """Return the factor on the learning rate: 0 → 1 over `warmup` steps, then a cosine to 0.

    Or, without `cosine`, 1 for good.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if not cosine:
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
