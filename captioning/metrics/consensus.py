"""Utilities for minimum Bayes risk: captions of each picture in, their worth to one another out.

`utility(captions)[i, a, b]` is the score of caption a of picture i with caption b as its only
reference, whatever the other pictures. Bind what is left and choose:
`minimum_bayes_risk(sample(…, samples=16), partial(cider_utility, documents=…), vocabulary)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from captioning.metrics.bert_similarity import TextEncoder
from captioning.metrics.bleu import bleu
from captioning.metrics.cider import Documents, cider_d_pairs
from captioning.metrics.ngrams import Scores
from captioning.metrics.rouge import rouge_l

Captions = Sequence[Sequence[str]]  # as many of each picture
Utilities = Float[np.ndarray, "image caption caption"]
# Every n-gram weighs log(2 / 1): cosines do not depend on how much that is.
EQUAL_WEIGHTS = Documents(Counter(), 2)


def bleu_utility(captions: Captions) -> Utilities:
    """Return BLEU-4, 0 to 1."""
    return _pairwise(bleu, captions)


def rouge_utility(captions: Captions) -> Utilities:
    """Return ROUGE-L, 0 to 1."""
    return _pairwise(rouge_l, captions)


def cider_utility(captions: Captions, documents: Documents | None = None) -> Utilities:
    """Return CIDEr-D, 0 to 10, with n-grams weighed by `documents`, such as training references.

    Without, all n-grams weigh the same.
    """
    documents = documents or EQUAL_WEIGHTS
    return np.array([cider_d_pairs(of_image, documents) for of_image in captions])


def bert_utility(captions: Captions, text_encoder: TextEncoder) -> Utilities:
    """Return the cosine of the two captions' vectors, -1 to 1."""
    texts = [text for of_image in captions for text in of_image]
    vectors = text_encoder(texts).view(len(captions), -1, text_encoder.model.config.hidden_size)
    return torch.einsum("iad,ibd->iab", vectors, vectors).numpy()


def _pairwise(metric: Callable[..., Scores], captions: Captions) -> Utilities:
    # Samples repeat themselves: each pair is scored once.
    pairs = list({(a, b) for of_image in captions for a in of_image for b in of_image})
    scores = metric([a for a, _ in pairs], [[b] for _, b in pairs]).per_image
    last = scores if scores.ndim == 1 else scores[:, -1]  # BLEU-4 of BLEU-1 to 4
    of_pair = dict(zip(pairs, last, strict=True))
    return np.array([[[of_pair[a, b] for b in many] for a in many] for many in captions])
