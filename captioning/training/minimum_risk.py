"""`training=risk`: minimum risk training on the beam's captions, after cross entropy.

Shen et al. 2016, arXiv 1512.02433, eq. 7-10, over the captions that beam search finds, with CIDEr-D
as the gain; compare SCST (Rennie et al. 2017, arXiv 1612.00563), which samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from captioning import UserError
from captioning.data.vocabulary import BOS, PAD
from captioning.features.batches import Batch
from captioning.models.decoder import Decoder
from captioning.training.module import CaptioningModule, scale_by_word_share


class RiskModule(CaptioningModule):
    """Cross entropy, and in the last `risk_epochs` the expected reward of the beam's captions.

    `search(decoder, features)` returns hypotheses; `reward(rows, references)` returns the function
    of the images' rows and tokens that scores them. `risk_learning_rate` falls linearly to zero.
    `sharpness` is the paper's alpha, the power to which probabilities are taken.
    """

    def __init__(
        self,
        decoder: Decoder,
        contents: dict[str, Any],
        search: Callable[..., Any],
        reward: Callable[..., Callable[[np.ndarray, np.ndarray], np.ndarray]],
        risk_epochs: int = 5,
        risk_learning_rate: float = 5e-5,
        sharpness: float = 0.5,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        label_smoothing: float = 0.1,
        cosine: bool = True,
    ):
        super().__init__(
            decoder, contents, learning_rate, weight_decay, warmup, label_smoothing, cosine
        )
        self.search = search
        self.make_reward = reward
        self.risk_epochs = risk_epochs
        self.risk_learning_rate = risk_learning_rate
        self.sharpness = sharpness

    def on_fit_start(self) -> None:
        """Raise UserError if no epoch is left for cross entropy."""
        super().on_fit_start()
        if not 0 < self.risk_epochs < self.trainer.max_epochs:
            raise UserError(
                f"training.risk_epochs={self.risk_epochs} leaves none of the "
                f"trainer.max_epochs={self.trainer.max_epochs} to cross entropy; type "
                f"trainer.max_epochs={self.risk_epochs + 1} or more"
            )

    def on_train_start(self) -> None:
        """Make the reward, with the training captions as references."""
        super().on_train_start()
        dataset = self.trainer.train_dataloader.dataset
        captions = np.split(dataset.tokens, dataset.starts[1:])
        references = [caption[1:].tolist() for caption in captions]
        self.num_images = dataset.store_rows.max() + 1
        self.reward = self.make_reward(dataset.store_rows, references)

    def on_train_epoch_start(self) -> None:
        """Remove the last epoch's cross entropy from the metrics: it is logged no more."""
        if self._is_risk_epoch():
            self.trainer.callback_metrics.pop("train/loss", None)

    def _is_risk_epoch(self) -> bool:
        return self.trainer.current_epoch >= self.trainer.max_epochs - self.risk_epochs

    def lr_factor(self, step: int, total: int) -> float:
        """Return the factor on the learning rate: each part has its own schedule."""
        risk_steps = total * self.risk_epochs // self.trainer.max_epochs
        if step < total - risk_steps:
            return super().lr_factor(step, total - risk_steps)
        return self.risk_learning_rate / self.learning_rate * max(0, total - step) / risk_steps

    def training_step(self, batch: Batch) -> Tensor:
        """Return the cross entropy, or in the last epochs the negative expected reward, 0 to 10."""
        if not self._is_risk_epoch():
            return super().training_step(batch)
        self.decoder.eval()
        tokens = self.search(self.decoder, batch.features).tokens.clone()  # of inference mode
        self.decoder.train()
        rows = batch.store_rows.repeat_interleave(tokens.shape[1]).cpu().numpy()
        rewards = self.reward(rows, tokens.flatten(0, 1).cpu().numpy())
        rewards = torch.from_numpy(rewards).to(tokens.device, torch.float32).view(tokens.shape[:2])
        weights = self._image_weights(batch.store_rows)
        count = float(weights.sum())
        self._log_epoch_mean("train/reward", (weights * rewards[:, 0]).sum() / count, count)
        expected = expected_reward(self.decoder, batch.features, tokens, rewards, self.sharpness)
        return -scale_by_word_share((weights * expected).sum() / count, count)

    def _image_weights(self, rows: Int[Tensor, " image"]) -> Float[Tensor, " image"]:
        """Return 1 over the number of processes that have captions of an image in this step."""
        if not torch.distributed.is_initialized():
            return torch.ones(rows.shape, device=rows.device)
        processes = torch.zeros(self.num_images, device=rows.device)
        processes[rows] = 1
        torch.distributed.all_reduce(processes)
        return 1 / processes[rows]


def expected_reward(
    decoder: Decoder,
    features: Float[Tensor, "image *region feature"],
    tokens: Int[Tensor, "image caption time"],
    rewards: Float[Tensor, "image caption"],
    sharpness: float,
) -> Float[Tensor, " image"]:
    """Return the mean reward of each image's captions, weighted by their probabilities.

    These are to the power `sharpness`, normalized over an image's captions. After `<eos>` a caption
    is filled with `<pad>`.
    """
    num_captions, captions = tokens.shape[1], tokens.flatten(0, 1)
    state = decoder.repeat(decoder.begin(features), num_captions)
    hidden, _ = decoder.decode(F.pad(captions, (1, 0), value=BOS)[:, :-1], state)
    positions = (captions != PAD).flatten().nonzero()[:, 0]
    logits = decoder.output(hidden.flatten(0, 1)[positions]).float()
    word_log_probs = -F.cross_entropy(logits, captions.flatten()[positions], reduction="none")
    log_probs = word_log_probs.new_zeros(len(captions)).index_add(
        0, positions // captions.shape[1], word_log_probs
    )
    probs = (sharpness * log_probs).view(rewards.shape).softmax(1)
    return (probs * rewards).sum(1)
