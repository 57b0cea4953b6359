"""BLEU-1 to BLEU-4 as coco-caption computes them: captions in, shares of matching n-grams out.

Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation". torchmetrics
has no equal: it takes the first of two equally close reference lengths (coco: the shorter), gives
0 where coco's two small constants do not, and adds up in float32.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from captioning.metrics.ngrams import MAX_NGRAM, Scores, Words, ngrams, tokenized

Counts = Float[np.ndarray, "row 10"]


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Return BLEU-1..4 from 0 to 1: `corpus` is `[4]`, `per_image` is `[image 4]`.

    The corpus value adds up the counts of all images: it is not the mean of `per_image`. The
    length to reach is that of the reference closest to the hypothesis, the shorter on a tie.
    An empty hypothesis scores 0. Raises UserError as `tokenized` does.
    """
    counts = bleu_counts(hypotheses, references)
    return Scores(bleu_of(counts.sum(0, keepdims=True))[0], bleu_of(counts))


def bleu_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
    """Return, a row an image, what BLEU adds up over images.

    The columns are the matching n-grams of each order, the n-grams of each order that the
    hypothesis has, its length, and the length to reach. Raises UserError as `tokenized` does.
    """
    counted = [_count(*captions) for captions in tokenized(hypotheses, references)]
    matches, lengths, targets = (np.array(column, float) for column in zip(*counted, strict=True))
    possible = np.maximum(lengths[:, None] - np.arange(MAX_NGRAM), 0)
    return np.column_stack([matches, possible, lengths, targets])


def _count(hypothesis: Words, references: list[Words]) -> tuple[list[int], int, int]:
    """Return the matching n-grams of each order, the length, and the length to reach."""
    most: Counter[Words] = Counter()  # how often one single reference has an n-gram
    for reference in references:
        most |= ngrams(reference)
    matches = [0] * MAX_NGRAM
    for ngram, count in (ngrams(hypothesis) & most).items():
        matches[len(ngram) - 1] += count
    length = len(hypothesis)
    target = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return matches, length, target


def bleu_of(counts: Counts) -> Float[np.ndarray, "row 4"]:
    """Return BLEU-1..4 of each row of counts: of one image, or added up over many."""
    matches, possible, lengths, targets = np.split(counts, [MAX_NGRAM, 2 * MAX_NGRAM, -1], axis=1)
    # The two constants are coco-caption's: they give a caption of three words a BLEU-4 above 0.
    precision = (matches + 1e-15) / (possible + 1e-9)
    mean = np.cumprod(precision, axis=1) ** (1 / np.arange(1, MAX_NGRAM + 1))
    ratio = (lengths + 1e-15) / (targets + 1e-9)
    brevity = np.exp(np.minimum(1 - 1 / ratio, 0))
    return mean * brevity
