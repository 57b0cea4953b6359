"""Minimum Bayes risk: of many samples, the caption that agrees best with the others.

Kumar and Byrne 2004; Freitag et al. 2022, arXiv 2111.09388; for captions, Devlin et al. 2015,
arXiv 1505.04467. metrics/consensus.py has the utilities.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from captioning.data.vocabulary import UNK
from captioning.search.beam import Hypotheses
from captioning.search.sample import sample

# From the captions of each image: [i, a, b] is the score of caption a of image i with reference b.
Utility = Callable[[list[list[str]]], Float[np.ndarray, "batch beam beam"]]


def consensus_search(
    decoder: nn.Module,
    features: Float[Tensor, "batch *region feature"],
    utility: Utility,
    samples: int = 16,
    temperature: float = 1.0,
    top_p: float = 0.9,
    max_length: int = 20,
    seed: int = 0,
) -> Hypotheses:
    """Sample captions of each image and order them by minimum Bayes risk.

    All images share their draws, so that an image's caption does not depend on its batch.
    """
    options = {"max_length": max_length, "seed": seed, "share_draws": True}
    hypotheses = sample(decoder, features, samples, temperature, top_p, **options)
    return minimum_bayes_risk(hypotheses, utility)


def minimum_bayes_risk(hypotheses: Hypotheses, utility: Utility) -> Hypotheses:
    """Order samples by their new `scores`: the mean utility against the others of the image.

    Utilities read words as ids, such as `"17 4 301"`. A single caption scores 0.
    """
    captions = [
        [" ".join(str(token) for token in tokens if token > UNK) for tokens in of_image]
        for of_image in hypotheses.tokens.tolist()
    ]
    utilities = torch.as_tensor(utility(captions)).to(hypotheses.scores)
    others = 1 - torch.eye(utilities.shape[-1]).to(utilities)
    expected = (utilities * others).sum(-1) / others.sum(-1).clamp(min=1)
    return Hypotheses(hypotheses.tokens, expected).best_first()
