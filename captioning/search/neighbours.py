"""Beam search; then the caption that suits what people said of the training pictures most alike.

Consensus re-ranking (Devlin et al. 2015, arXiv 1505.04467, eq. 1; Mao et al. 2015,
arXiv 1412.6632, 7): the model proposes, the neighbours choose. Next: metrics/reward.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from captioning.data.records import Record, UserError
from captioning.data.vocabulary import Vocabulary
from captioning.search.beam import Decoder, Hypotheses, beam_search


class Neighbours:
    """Orders a beam of `width` by the captions of the `neighbours` nearest training pictures.

    A caption's score is its mean reward with each neighbour's captions, where a neighbour counts
    exp(cosine / `temperature`), and `likelihood` times its log-probability a word, in nats.
    Cosines are those of pooled features, each less its mean and over its standard deviation among
    the training pictures. `reward(rows, references)` is a CiderReward, or what else has `against`.
    """

    def __init__(
        self,
        reward: Callable[..., Any],
        width: int = 20,
        max_length: int = 20,
        neighbours: int = 60,
        temperature: float = 0.1,
        likelihood: float = 0.1,
    ):
        self.reward = reward
        self.beam = partial(beam_search, width=width, max_length=max_length)
        self.neighbours = neighbours
        self.temperature = temperature
        self.likelihood = likelihood

    def __call__(self, decoder: Decoder, features: Tensor) -> Hypotheses:
        """Raise UserError: who searches needs the training pictures; see `among`."""
        raise UserError(
            "search=neighbours needs the training pictures, which captioning.train and "
            "captioning.evaluate have; type search=beam here, or see docs/models.md for Python"
        )

    def among(
        self,
        records: Sequence[Record],
        features_of: Callable[[Sequence[Record]], Tensor],
        vocabulary: Vocabulary,
    ) -> Callable[[Decoder, Tensor], Hypotheses]:
        """Return the search among these training pictures; none of them should be scored.

        Raises UserError where there are fewer than two that have captions.
        """
        records = [record for record in records if record.captions]
        if len(records) < 2:
            raise UserError(
                f"search=neighbours needs two training pictures with captions or more, and these "
                f"data have {len(records)}; type search=beam"
            )
        starts = range(0, len(records), 250)
        pooled = torch.cat([_pooled(features_of(records[at : at + 250])) for at in starts])
        spread, mean = torch.std_mean(pooled, 0)
        # What is the same in all of them, such as a channel that is never on, tells nothing.
        weight = torch.where(spread > 1e-4 * spread.max(), 1 / spread, 0.0)
        rows = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        captions = [text for record in records for text in record.captions]
        reward = self.reward(rows, [vocabulary.encode(text)[1:] for text in captions])

        def vectors(features: Tensor) -> Float[Tensor, "batch feature"]:
            return torch.nn.functional.normalize((_pooled(features) - mean) * weight)

        return partial(self._search, vectors, vectors(pooled), reward.against)

    @torch.inference_mode()
    def _search(
        self,
        vectors: Callable[[Tensor], Tensor],
        pictures: Float[Tensor, "picture feature"],
        against: Callable[[np.ndarray, np.ndarray], np.ndarray],
        decoder: Decoder,
        features: Tensor,
    ) -> Hypotheses:
        found = self.beam(decoder, features)
        cosines = vectors(features.cpu()) @ pictures.T
        cosines, near = cosines.topk(min(self.neighbours, cosines.shape[1]))
        shares = (cosines / self.temperature).softmax(1)
        scores = self.likelihood * found.scores
        for row, (tokens, share) in enumerate(zip(found.tokens, shares, strict=True)):
            rows = near[row].expand(len(tokens), -1).numpy()
            rewards = torch.from_numpy(against(tokens.cpu().numpy(), rows))
            scores[row] += (rewards.to(share) @ share).to(scores)
        scores[found.scores == -torch.inf] = -torch.inf  # what fills up a beam
        return Hypotheses(found.tokens, scores).best_first()


def _pooled(features: Tensor) -> Float[Tensor, "batch feature"]:
    return features if features.dim() == 2 else features.mean(dim=1)
