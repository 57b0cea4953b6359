"""Rerank hypotheses by the captions of training images that look like the image.

Consensus re-ranking (Devlin et al. 2015, arXiv 1505.04467, eq. 1; Mao et al. 2015,
arXiv 1412.6632, 7) counts the captions of the k nearest images; here those of all training images
count, by kernel ridge regression, and, if asked for, image_fit. It can follow any search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.features.store import FeatureStore
from captioning.search.beam import Hypotheses

Rerank = Callable[[Hypotheses, Tensor], Hypotheses]


@dataclass
class NeighbourRerank:
    """Reorders hypotheses by the reward that the captions of the training images predict.

    From a hypothesis' rewards against the captions of each training image (at most `max_images`,
    evenly spaced), `KernelRidge` predicts that for its own image; `likelihood` times the score of
    the search is added, and `image_fit_weight` times what `image_fit`, an ImageFit, says, if
    there is one. `reward` is the class CiderReward, or one like it.
    """

    reward: Callable[..., Any]
    temperature: float = 0.6
    ridge: float = 0.3
    likelihood: float = 0.2
    max_images: int = 10_000
    image_fit: Any = None
    image_fit_weight: float = 1.0

    def fit(self, records: Sequence[Record], store: FeatureStore, vocabulary: Vocabulary) -> Rerank:
        """Return the function that reranks; none of these training images should be scored."""
        fit_model = self.image_fit and self.image_fit.fit(records, store)
        records = [record for record in records if record.captions]
        if len(records) < 2:
            raise UserError(
                "rerank=neighbours needs two training images with captions; type rerank=null"
            )
        records = records[:: -(-len(records) // self.max_images)]
        pooled = pool_features(records, store)
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
            if fit_model:
                texts = [[vocabulary.decode(row) for row in of_image] for of_image in tokens]
                fits = fit_model.image_fit(features.cpu(), texts)
                predicted += self.image_fit_weight * torch.stack(fits).to(scores)
            predicted[scores == -torch.inf] = -torch.inf  # the beam's empty captions
            return Hypotheses(hypotheses.tokens, predicted).best_first()

        return rerank


class Standardization(NamedTuple):
    """The mean of each feature over the training images, and 1 / its standard deviation."""

    mean: Float[Tensor, " feature"]
    scale: Float[Tensor, " feature"]

    @classmethod
    def of(cls, features: Float[Tensor, "image feature"]) -> Standardization:
        """Measure the features of the training images."""
        std, mean = torch.std_mean(features, 0)
        # A feature that is the same in all images, such as a channel that is never on, is left out.
        return cls(mean, torch.where(std > 1e-4 * std.max(), 1 / std, 0.0))

    def __call__(self, features: Float[Tensor, "_ feature"]) -> Float[Tensor, "_ feature"]:
        """Return standardized features as unit vectors."""
        return normalize((features - self.mean) * self.scale)


class ImageKernel:
    """The kernel exp((cosine - 1) / `temperature`) of training images, of standardized features."""

    def __init__(self, features: Float[Tensor, "image feature"], temperature: float):
        self.temperature = temperature
        self.standardize = Standardization.of(features)
        self.images = self.standardize(features)

    @torch.autocast("cpu", enabled=False)  # an inverse needs more than bfloat16's three digits
    def __call__(self, features: Float[Tensor, "_ feature"]) -> Float[Tensor, "_ image"]:
        """Return the kernel of other images with each training image."""
        # By rounding, cosines can be above 1.
        cosines = self.standardize(features) @ self.images.T
        return ((cosines - 1).clamp(max=0) / self.temperature).exp()


class KernelRidge:
    """Kernel ridge regression from images to whatever training images have."""

    def __init__(self, features: Float[Tensor, "image feature"], temperature: float, ridge: float):
        self.kernel = ImageKernel(features, temperature)
        gram = self.kernel(features) + ridge * torch.eye(len(features))
        self.factor = torch.linalg.cholesky(gram)

    def kernel_weights(self, features: Float[Tensor, "_ feature"]) -> Float[Tensor, "_ image"]:
        """Return the weight of each training image in the predictions for other images."""
        return torch.cholesky_solve(self.kernel(features).T, self.factor).T

    def coefficients(self, targets: Float[Tensor, "image target"]) -> Float[Tensor, "image target"]:
        """Return what a kernel with the training images is multiplied by to predict `targets`."""
        return torch.cholesky_solve(targets, self.factor)


def pool_features(records: Sequence[Record], store: FeatureStore) -> Float[Tensor, "image feature"]:
    """Return `root_pool` of the features of many images, read some at a time."""
    starts = range(0, len(records), 250)
    return torch.cat([root_pool(store.get_features(records[at : at + 250])) for at in starts])


def root_pool(features: Float[Tensor, "batch *region feature"]) -> Float[Tensor, "batch feature"]:
    """Return signed square roots of the mean over regions (Perronnin et al. 2010, 3.2)."""
    pooled = features if features.dim() == 2 else features.mean(dim=1)
    return pooled.sign() * pooled.abs().sqrt()
