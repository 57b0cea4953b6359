"""ROUGE-L as coco-caption computes it: captions in, shares of words in the same order out.

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
"""

from collections.abc import Sequence

import numpy as np

from captioning.metrics.ngrams import Scores, Words, tokenized

BETA = 1.2  # recall weighs this much more than precision


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Return ROUGE-L from 0 to 1: `corpus` is the mean of `per_image`, which is `[image]`.

    Precision and recall are the best over the references, not of one of them. An empty hypothesis
    scores 0, or 1 where a reference is empty too. Raises UserError as `tokenized` does.
    """
    per_image = np.array([_rouge_l(*captions) for captions in tokenized(hypotheses, references)])
    return Scores(float(per_image.mean()), per_image)


def _rouge_l(hypothesis: Words, references: list[Words]) -> float:
    hypothesis = hypothesis or ("",)  # coco-caption splits "" into one empty word
    references = [reference or ("",) for reference in references]
    common = [longest_common_subsequence(hypothesis, reference) for reference in references]
    precision = max(common) / len(hypothesis)
    recall = max(same / len(words) for same, words in zip(common, references, strict=True))
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Words, second: Words) -> int:
    """Return how many words the two have in the same order, gaps allowed."""
    row = [0] * (len(second) + 1)  # of the part of `first` seen so far, against second[:column]
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, 1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
