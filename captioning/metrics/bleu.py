"""BLEU-1 to BLEU-4 (Papineni et al. 2002), equal to coco-caption's.

torchmetrics' is another: of two equally close reference lengths it takes the first (coco: the
shorter), it gives 0 where coco's two small constants do not, and adds up in float32.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from captioning.metrics.ngrams import MAX_NGRAM, Words, count_ngrams, tokenize_captions


def bleu_counts(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "image 10"]:
    """Return the counts of each image that BLEU adds up over images.

    They are the matching n-grams of each order, all n-grams of each order in the hypothesis, its
    length, and the length of the reference closest to it, the shorter on a tie.
    """
    images = tokenize_captions(hypotheses, references)
    return np.array([_count_matches(words, others) for words, others in images], float)


def _count_matches(hypothesis: Words, references: list[Words]) -> list[int]:
    most: Counter[Words] = Counter()  # of an n-gram in a single reference
    for reference in references:
        most |= count_ngrams(reference)
    matches = [0] * MAX_NGRAM
    for ngram, count in (count_ngrams(hypothesis) & most).items():
        matches[len(ngram) - 1] += count
    length = len(hypothesis)
    possible = [max(length - n, 0) for n in range(MAX_NGRAM)]
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return [*matches, *possible, length, closest]


def bleu_from_counts(counts: Float[np.ndarray, "row 10"]) -> Float[np.ndarray, "row 4"]:
    """Return BLEU-1 to 4, 0 to 1, of each row of counts: of one image, or summed over many."""
    matches, possible, lengths, targets = np.split(counts, [MAX_NGRAM, 2 * MAX_NGRAM, -1], axis=1)
    # The two constants are coco-caption's: they give a caption of three words a BLEU-4 above 0.
    precision = (matches + 1e-15) / (possible + 1e-9)
    mean = np.cumprod(precision, axis=1) ** (1 / np.arange(1, MAX_NGRAM + 1))
    ratio = (lengths + 1e-15) / (targets + 1e-9)
    brevity_penalty = np.exp(np.minimum(1 - 1 / ratio, 0))
    return mean * brevity_penalty
