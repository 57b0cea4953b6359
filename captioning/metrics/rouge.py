"""ROUGE-L (Lin 2004), equal to coco-caption's."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from captioning.metrics.ngrams import Words, tokenize_captions

BETA = 1.2  # recall weighs this much more than precision


def rouge_l(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, " image"]:
    """Return ROUGE-L of each image, 0 to 1.

    Precision and recall are each the best over the references, not of a single one.
    """
    images = tokenize_captions(hypotheses, references)
    return np.array([_f_score(words, others) for words, others in images])


def _f_score(hypothesis: Words, references: list[Words]) -> float:
    hypothesis = hypothesis or ("",)  # coco-caption splits "" into one empty word
    references = [reference or ("",) for reference in references]
    common = [longest_common_subsequence(hypothesis, reference) for reference in references]
    precision = max(common) / len(hypothesis)
    recall = max(length / len(words) for length, words in zip(common, references, strict=True))
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Words, second: Words) -> int:
    """Return how many words the two have in the same order, gaps allowed."""
    row = [0] * (len(second) + 1)  # of the words of `first` read so far, against second[:column]
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, 1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
