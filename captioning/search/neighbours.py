"""Beam search; then the caption that suits what people said of training pictures like this one.

Consensus re-ranking (Devlin et al. 2015, arXiv 1505.04467, eq. 1; Mao et al. 2015,
arXiv 1412.6632, 7): the model proposes, other pictures' captions choose. Theirs counts k nearest
pictures; here all count, by kernel ridge regression. Next: metrics/reward.py.
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
    """Orders a beam of `width` by the reward that the training pictures let expect.

    A caption's reward with the captions of each training picture is regressed on the pictures'
    features, by the kernel exp((cosine - 1) / `temperature`) and with `ridge` on its diagonal,
    and read off at the picture that is captioned; `likelihood` times the caption's
    log-probability a word, in nats, is added. Cosines are those of pooled features' square roots
    (Perronnin et al. 2010, 3.2), each less its mean and over its standard deviation among the
    training pictures; of more than `pictures`, evenly chosen ones count.
    `reward(rows, references)` is a CiderReward, or what else has `blend`.
    """

    def __init__(
        self,
        reward: Callable[..., Any],
        width: int = 50,
        max_length: int = 20,
        temperature: float = 0.6,
        ridge: float = 0.3,
        likelihood: float = 0.2,
        pictures: int = 10_000,
    ):
        self.reward = reward
        self.beam = partial(beam_search, width=width, max_length=max_length)
        self.temperature = temperature
        self.ridge = ridge
        self.likelihood = likelihood
        self.pictures = pictures

    def __call__(self, decoder: Decoder, features: Tensor) -> Hypotheses:
        """Raise UserError: who searches needs the training pictures; see `among`."""
        raise UserError(
            "search=neighbours needs training pictures: type search=beam; or, with "
            "captioning.caption, data=FOLDER; or in Python captioner.use_neighbours(FOLDER)"
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
        records = records[:: -(-len(records) // self.pictures)]
        starts = range(0, len(records), 250)
        pooled = torch.cat([_pooled(features_of(records[at : at + 250])) for at in starts])
        spread, mean = torch.std_mean(pooled, 0)
        # What is the same in all of them, such as a channel that is never on, tells nothing.
        weight = torch.where(spread > 1e-4 * spread.max(), 1 / spread, 0.0)
        rows = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        captions = [text for record in records for text in record.captions]
        reward = self.reward(rows, [vocabulary.encode(text)[1:] for text in captions])

        def standard(pooled: Tensor) -> Float[Tensor, "batch feature"]:
            return torch.nn.functional.normalize((pooled - mean) * weight)

        @torch.autocast("cpu", enabled=False)  # three digits would not do to divide by a kernel
        def kernel(vectors: Tensor) -> Float[Tensor, "batch picture"]:
            # Alike ones' cosines round to more than 1.
            return ((vectors @ known.T - 1).clamp(max=0) / self.temperature).exp()

        known = standard(pooled)
        factor = torch.linalg.cholesky(kernel(known) + self.ridge * torch.eye(len(known)))

        def shares(features: Tensor) -> Float[np.ndarray, "batch picture"]:
            vectors = standard(_pooled(features.cpu()))
            return torch.cholesky_solve(kernel(vectors).T, factor).T.double().numpy()

        return partial(self._search, shares, reward.blend)

    @torch.inference_mode()
    def _search(
        self,
        shares: Callable[[Tensor], np.ndarray],
        blend: Callable[[np.ndarray, np.ndarray], np.ndarray],
        decoder: Decoder,
        features: Tensor,
    ) -> Hypotheses:
        found = self.beam(decoder, features)
        rewards = [*map(blend, found.tokens.cpu().numpy(), shares(features))]
        scores = torch.from_numpy(np.stack(rewards)).to(found.scores)
        scores += self.likelihood * found.scores
        scores[found.scores == -torch.inf] = -torch.inf  # what fills up a beam
        return Hypotheses(found.tokens, scores).best_first()


def _pooled(features: Tensor) -> Float[Tensor, "batch feature"]:
    pooled = features if features.dim() == 2 else features.mean(dim=1)
    return pooled.sign() * pooled.abs().sqrt()
