"""`training=risk`: after cross entropy, the decoder learns which of its own captions are better.

Minimum risk training (Shen et al. 2016, arXiv 1512.02433, eq. 7-10) over what the beam finds, with
CIDEr-D as the gain; compare SCST (Rennie et al. 2017, arXiv 1612.00563), which samples. Search and
reward come from outside, as they are later stages. Next: search/.
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
from captioning.training.module import CaptioningModule


class RiskModule(CaptioningModule):
    """Cross entropy, and in the last `risk_epochs` the expected reward of the beam's captions.

    `search(decoder, features)` returns the captions, `reward(rows, references)` what scores them:
    a function of the pictures' rows and tokens. `risk_learning_rate` falls in a line to zero.
    `sharpness` is the paper's alpha: the captions' probabilities to that power, made to sum to 1,
    are what a caption counts. Raises UserError where no epoch is left for cross entropy.
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
        """Refuse epochs that leave none for cross entropy."""
        super().on_fit_start()
        if not 0 < self.risk_epochs < self.trainer.max_epochs:
            raise UserError(
                f"training.risk_epochs={self.risk_epochs} must leave some of the "
                f"trainer.max_epochs={self.trainer.max_epochs} to cross entropy; type "
                f"training.risk_epochs={max(1, self.trainer.max_epochs // 3)} "
                f"trainer.max_epochs={max(2, self.trainer.max_epochs)}"
            )

    def on_train_start(self) -> None:
        """Take the training captions, which the loader has read, as references."""
        dataset = self.trainer.train_dataloader.dataset
        references = np.split(dataset.tokens, dataset.starts[1:])
        self.images = dataset.store_rows.max() + 1
        self.reward = self.make_reward(dataset.store_rows, [one[1:].tolist() for one in references])

    def on_train_epoch_start(self) -> None:
        """Let Lightning forget the loss of the epochs before, which is logged no more."""
        if self._is_for_reward():
            self.trainer.callback_metrics.pop("train/loss", None)

    def _weigh(self, rows: Int[Tensor, " picture"]) -> Float[Tensor, " picture"]:
        """Return what each image counts: 1 over the processes that have captions of it."""
        if not torch.distributed.is_initialized():
            return torch.ones(rows.shape, device=rows.device)
        processes = torch.zeros(self.images, device=rows.device)
        processes[rows] = 1
        torch.distributed.all_reduce(processes)
        return 1 / processes[rows]

    def _is_for_reward(self) -> bool:
        return self.trainer.current_epoch >= self.trainer.max_epochs - self.risk_epochs

    def factor(self, step: int, total: int) -> float:
        """Return the factor on the learning rate: each part has a schedule of its own."""
        risk = total * self.risk_epochs // self.trainer.max_epochs
        if step < total - risk:
            return super().factor(step, total - risk)
        return self.risk_learning_rate / self.learning_rate * max(0, total - step) / risk

    def training_step(self, batch: Batch) -> Tensor:
        """Return cross entropy, or in the last epochs less the expected reward, 0 to 10."""
        if not self._is_for_reward():
            return super().training_step(batch)
        self.decoder.eval()
        found = self.search(self.decoder, batch.features).tokens.clone()  # of inference mode
        self.decoder.train()
        rows = batch.store_rows.repeat_interleave(found.shape[1]).cpu().numpy()
        reward = self.reward(rows, found.flatten(0, 1).cpu().numpy())
        worth = torch.from_numpy(reward).to(found.device, torch.float32).view(found.shape[:2])
        weights = self._weigh(batch.store_rows)
        count = float(weights.sum())
        self.log(
            "train/reward",
            (weights * worth[:, 0]).sum() / count,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=count,
            sync_dist=True,
        )
        expected = expected_reward(self.decoder, batch.features, found, worth, self.sharpness)
        return -self._for_the_mean((weights * expected).sum() / count, count)


def expected_reward(
    decoder: Decoder,
    features: Float[Tensor, "picture *region feature"],
    tokens: Int[Tensor, "picture caption time"],
    worth: Float[Tensor, "picture caption"],
    sharpness: float,
) -> Float[Tensor, " picture"]:
    """Return what a caption of each picture is worth on average, by the captions' probabilities.

    They are the decoder's, to the power `sharpness`, and sum to 1 a picture. Captions end with
    `<eos>`, then `<pad>`.
    """
    captions, rows = tokens.shape[1], tokens.flatten(0, 1)
    state = decoder.repeat(decoder.begin(features), captions)
    hidden, _ = decoder.decode(F.pad(rows, (1, 0), value=BOS)[:, :-1], state)
    real = (rows != PAD).flatten().nonzero()[:, 0]
    logits = decoder.output(hidden.flatten(0, 1)[real]).float()
    said = -F.cross_entropy(logits, rows.flatten()[real], reduction="none")
    total = said.new_zeros(len(rows)).index_add(0, real // rows.shape[1], said)
    share = (sharpness * total).view(worth.shape).softmax(1)
    return (share * worth).sum(1)
