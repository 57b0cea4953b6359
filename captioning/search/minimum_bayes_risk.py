"""Minimum Bayes risk: candidates in, ordered by how well they agree with one another out.

The sentence that is closest to what else the model might say, not the most probable one (Kumar and
Byrne 2004; Freitag et al. 2022, arXiv 2111.09388; for captions, Devlin et al. 2015,
arXiv 1505.04467). Next: metrics/consensus.py has the utilities.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from captioning.data.vocabulary import UNK, Vocabulary
from captioning.search.beam import Decoder, Hypotheses
from captioning.search.sample import sample

# From the captions of each picture: [i, a, b] is what caption a of picture i is worth if b is true.
Utility = Callable[[list[list[str]]], Float[np.ndarray, "batch beam beam"]]


def consensus_search(
    decoder: Decoder,
    features: Float[Tensor, "batch *region feature"],
    utility: Utility,
    samples: int = 16,
    temperature: float = 1.0,
    top_p: float = 0.9,
    max_length: int = 20,
    seed: int = 0,
) -> Hypotheses:
    """Draw sentences for each picture and order them by minimum Bayes risk.

    All images share their draws, so that an image's caption does not depend on its batch. The
    utility compares words by their ids, as n-gram scores can. Raises UserError as `sample`.
    """
    options = {"seed": seed, "share_draws": True}
    drawn = sample(decoder, features, samples, temperature, top_p, max_length, **options)
    return minimum_bayes_risk(drawn, utility)


def minimum_bayes_risk(
    hypotheses: Hypotheses, utility: Utility, vocabulary: Vocabulary | None = None
) -> Hypotheses:
    """Return the candidates of each picture by their mean utility against the others, best first.

    The others stand for what may be true, so the candidates should be samples, the more the better,
    drawn with `temperature` and `top_p` at or near 1; a caption drawn twice counts twice. `scores`
    are the mean utilities, 0 where there is one candidate; equals keep their order. Without a
    vocabulary the utility is given the words' ids as text, `"17 4 301"`.
    """
    text = vocabulary.decode if vocabulary else _ids
    captions = [[text(row) for row in rows] for rows in hypotheses.tokens.tolist()]
    worth = torch.as_tensor(utility(captions)).to(hypotheses.scores)
    others = 1 - torch.eye(worth.shape[-1]).to(worth)
    expected = (worth * others).sum(-1) / others.sum(-1).clamp(min=1)
    return Hypotheses(hypotheses.tokens, expected).best_first()


def _ids(tokens: list[int]) -> str:
    return " ".join(str(token) for token in tokens if token > UNK)
