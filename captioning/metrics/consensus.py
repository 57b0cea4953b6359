"""Utilities for minimum Bayes risk: the score of each caption with each other as its reference.

`utility(captions)[i, a, b]` is that of caption a of image i with caption b as the only reference.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from captioning.metrics.bleu import bleu_counts, bleu_from_counts
from captioning.metrics.cider import DocumentFrequencies, cider_d
from captioning.metrics.rouge import rouge_l

Captions = Sequence[Sequence[str]]  # as many of each image
Utilities = Float[np.ndarray, "image caption caption"]


def bleu_utility(captions: Captions) -> Utilities:
    """Return BLEU-4, 0 to 1."""
    return _score_pairs(lambda *texts: bleu_from_counts(bleu_counts(*texts))[:, 3], captions)


def rouge_utility(captions: Captions) -> Utilities:
    """Return ROUGE-L, 0 to 1."""
    return _score_pairs(rouge_l, captions)


def cider_utility(captions: Captions) -> Utilities:
    """Return CIDEr-D, 0 to 10, all n-grams weighing the same."""
    # All weigh log(2 / 1): cosines do not depend on how much that is.
    return _score_pairs(partial(cider_d, documents=DocumentFrequencies(Counter(), 2)), captions)


def _score_pairs(metric: Callable[..., np.ndarray], captions: Captions) -> Utilities:
    # Samples recur: each pair is scored once.
    pairs = list({(a, b) for of_image in captions for a in of_image for b in of_image})
    scores = metric([a for a, _ in pairs], [[b] for _, b in pairs])
    by_pair = dict(zip(pairs, scores, strict=True))
    return np.array([[[by_pair[a, b] for b in texts] for a in texts] for texts in captions])
