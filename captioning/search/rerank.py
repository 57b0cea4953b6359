"""Rerank hypotheses by the captions of training images that look like the image.

Consensus re-ranking (Devlin et al. 2015, arXiv 1505.04467, eq. 1; Mao et al. 2015,
arXiv 1412.6632, 7), which counts the captions of the k nearest images; here those of all training
images count, by kernel ridge regression. Any search can be followed by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.search.beam import Hypotheses

Rerank = Callable[[Hypotheses, Tensor], Hypotheses]


class NeighbourRerank:
    """Reorders hypotheses by the reward that the captions of the training images predict.

    A hypothesis' reward against the captions of each training image is regressed on the images'
    features, by the kernel exp((cosine - 1) / `temperature`) with `ridge` on its diagonal, and
    predicted for the image at hand; `likelihood` times the score of the search is added. Cosines
    are of the square roots of pooled features (Perronnin et al. 2010, 3.2), standardized over the
    training images, of which at most `max_images`, evenly spaced, count.
    `reward(rows, references)` is a CiderReward, or another class with `weighted_reward`.
    """

    def __init__(
        self,
        reward: Callable[..., Any],
        temperature: float = 0.6,
        ridge: float = 0.3,
        likelihood: float = 0.2,
        max_images: int = 10_000,
    ):
        self.reward = reward
        self.temperature = temperature
        self.ridge = ridge
        self.likelihood = likelihood
        self.max_images = max_images

    def fit(
        self,
        records: Sequence[Record],
        features_of: Callable[[Sequence[Record]], Tensor],
        vocabulary: Vocabulary,
    ) -> Rerank:
        """Return the rerank of these training images; none of them should be scored.

        Raises UserError for fewer than two images with captions.
        """
        records = [record for record in records if record.captions]
        if len(records) < 2:
            raise UserError(
                f"rerank=neighbours needs two training images with captions or more, and these "
                f"data have {len(records)}; type rerank=null"
            )
        records = records[:: -(-len(records) // self.max_images)]
        starts = range(0, len(records), 250)
        pooled = torch.cat([_pooled(features_of(records[at : at + 250])) for at in starts])
        spread, mean = torch.std_mean(pooled, 0)
        # What is the same in all of them, such as a channel that is never on, tells nothing.
        weight = torch.where(spread > 1e-4 * spread.max(), 1 / spread, 0.0)
        rows = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        captions = [text for record in records for text in record.captions]
        reward = self.reward(rows, [vocabulary.encode(text)[1:] for text in captions])

        def standardize(pooled: Tensor) -> Float[Tensor, "batch feature"]:
            return torch.nn.functional.normalize((pooled - mean) * weight)

        @torch.autocast("cpu", enabled=False)  # three digits would not do to divide by a kernel
        def kernel(vectors: Tensor) -> Float[Tensor, "batch image"]:
            # Alike ones' cosines round to more than 1.
            return ((vectors @ known.T - 1).clamp(max=0) / self.temperature).exp()

        known = standardize(pooled)
        factor = torch.linalg.cholesky(kernel(known) + self.ridge * torch.eye(len(known)))

        @torch.inference_mode()
        def rerank(hypotheses: Hypotheses, features: Tensor) -> Hypotheses:
            vectors = standardize(_pooled(features.cpu()))
            kernel_weights = torch.cholesky_solve(kernel(vectors).T, factor).T.double().numpy()
            tokens, scores = hypotheses.tokens.cpu().numpy(), hypotheses.scores
            rewards = np.stack([*map(reward.weighted_reward, tokens, kernel_weights)])
            fit = torch.from_numpy(rewards).to(scores) + self.likelihood * scores
            fit[scores == -torch.inf] = -torch.inf  # what fills up a beam
            return Hypotheses(hypotheses.tokens, fit).best_first()

        return rerank


def _pooled(features: Tensor) -> Float[Tensor, "batch feature"]:
    pooled = features if features.dim() == 2 else features.mean(dim=1)
    return pooled.sign() * pooled.abs().sqrt()
