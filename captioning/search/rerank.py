"""Rerank hypotheses by the captions of training images that look like the image.

Consensus re-ranking (Devlin et al. 2015, arXiv 1505.04467, eq. 1; Mao et al. 2015,
arXiv 1412.6632, 7) counts the captions of the k nearest images; here those of all training images
count, by kernel ridge regression. It can follow any search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.search.beam import Hypotheses

Rerank = Callable[[Hypotheses, Tensor], Hypotheses]


@dataclass
class NeighbourRerank:
    """Reorders hypotheses by the reward that the captions of the training images predict.

    From a hypothesis' rewards against the captions of each training image (at most `max_images`,
    evenly spaced), `KernelRidge` predicts that for its own image; `likelihood` times the score of
    the search is added. `reward` is the class CiderReward, or one like it.
    """

    reward: Callable[..., Any]
    temperature: float = 0.6
    ridge: float = 0.3
    likelihood: float = 0.2
    max_images: int = 10_000

    def fit(
        self,
        records: Sequence[Record],
        features_of: Callable[[Sequence[Record]], Tensor],
        vocabulary: Vocabulary,
    ) -> Rerank:
        """Return the function that reranks; none of these training images should be scored."""
        records = [record for record in records if record.captions]
        if len(records) < 2:
            raise UserError(
                "rerank=neighbours needs two training images with captions; type rerank=null"
            )
        records = records[:: -(-len(records) // self.max_images)]
        starts = range(0, len(records), 250)
        pooled = torch.cat([root_pool(features_of(records[at : at + 250])) for at in starts])
        regression = KernelRidge(pooled, self.temperature, self.ridge)
        rows = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        captions = [vocabulary.encode(text)[1:] for record in records for text in record.captions]
        reward = self.reward(rows, captions)

        @torch.inference_mode()
        def rerank(hypotheses: Hypotheses, features: Tensor) -> Hypotheses:
            kernel_weights = regression.kernel_weights(root_pool(features.cpu())).double().numpy()
            tokens, scores = hypotheses.tokens.cpu().numpy(), hypotheses.scores
            rewards = np.stack([*map(reward.weighted_reward, tokens, kernel_weights)])
            predicted = torch.from_numpy(rewards).to(scores) + self.likelihood * scores
            predicted[scores == -torch.inf] = -torch.inf  # the beam's empty captions
            return Hypotheses(hypotheses.tokens, predicted).best_first()

        return rerank


class KernelRidge:
    """Kernel ridge regression with the kernel exp((cosine - 1) / `temperature`)."""

    def __init__(self, features: Float[Tensor, "image feature"], temperature: float, ridge: float):
        self.temperature = temperature
        std, self.mean = torch.std_mean(features, 0)
        # A feature that is the same in all images, such as a channel that is never on, is left out.
        self.scale = torch.where(std > 1e-4 * std.max(), 1 / std, 0.0)
        self.images = normalize((features - self.mean) * self.scale)
        kernel = self._kernel(features) + ridge * torch.eye(len(features))
        self.factor = torch.linalg.cholesky(kernel)

    def kernel_weights(self, features: Float[Tensor, "_ feature"]) -> Float[Tensor, "_ image"]:
        """Return the weight of each training image in the predictions for other images."""
        return torch.cholesky_solve(self._kernel(features).T, self.factor).T

    @torch.autocast("cpu", enabled=False)  # the inverse needs more than bfloat16's three digits
    def _kernel(self, features: Float[Tensor, "_ feature"]) -> Float[Tensor, "_ image"]:
        vectors = normalize((features - self.mean) * self.scale)
        # By rounding, cosines can be above 1.
        return ((vectors @ self.images.T - 1).clamp(max=0) / self.temperature).exp()


def root_pool(features: Float[Tensor, "batch *region feature"]) -> Float[Tensor, "batch feature"]:
    """Return signed square roots of the mean over regions (Perronnin et al. 2010, 3.2)."""
    pooled = features if features.dim() == 2 else features.mean(dim=1)
    return pooled.sign() * pooled.abs().sqrt()
