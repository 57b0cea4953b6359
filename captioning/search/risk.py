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

from captioning.data.vocabulary import Vocabulary
from captioning.search.beam import Hypotheses

# From the captions of each picture: [i, a, b] is what caption a of picture i is worth if b is true.
Utility = Callable[[list[list[str]]], Float[np.ndarray, "batch beam beam"]]


def minimum_bayes_risk(
    hypotheses: Hypotheses, utility: Utility, vocabulary: Vocabulary
) -> Hypotheses:
    """Return the candidates of each picture by their mean utility against the others, best first.

    The others stand for what may be true, so the candidates should be samples, the more the better,
    drawn with `temperature` and `top_p` at or near 1; a caption drawn twice counts twice. `scores`
    are the mean utilities, 0 where there is one candidate; equals keep their order.
    """
    captions = [[vocabulary.decode(row) for row in rows] for rows in hypotheses.tokens.tolist()]
    worth = torch.as_tensor(utility(captions)).to(hypotheses.scores)
    others = 1 - torch.eye(worth.shape[-1]).to(worth)
    expected = (worth * others).sum(-1) / others.sum(-1).clamp(min=1)
    return Hypotheses(hypotheses.tokens, expected).best_first()
