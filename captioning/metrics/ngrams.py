"""What the word-overlap metrics share: checked, tokenized captions in; a pair of scores out.

Each metric has its file: bleu.py, rouge.py, cider.py. Next: captions.py calls all three.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from captioning import UserError
from captioning.data.tokenizer import tokenize

Words = tuple[str, ...]
MAX_NGRAM = 4


class Scores(NamedTuple):
    """A metric's value for the whole corpus, and for each image alone."""

    corpus: float | Float[np.ndarray, " order"]
    per_image: Float[np.ndarray, " image *order"]


@lru_cache(maxsize=2**17)  # references are scored after every epoch
def _words(caption: str) -> Words:
    return tuple(tokenize(caption))


def tokenized(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> list[tuple[Words, list[Words]]]:
    """Return, for each image, the words of its hypothesis and of its references.

    Raises UserError where the two differ in length, are empty, or an image has no reference.
    """
    if len(hypotheses) != len(references):
        raise UserError(
            f"{len(hypotheses)} hypotheses but references of {len(references)} images; "
            "give one hypothesis an image"
        )
    if not hypotheses:
        raise UserError("there is no caption to score; give at least one hypothesis")
    for number, of_image in enumerate(references):
        if isinstance(of_image, str) or not of_image:
            raise UserError(
                f"references[{number}] is {of_image!r}; give a list of one caption or more"
            )
    return [
        (_words(hypothesis), [_words(reference) for reference in of_image])
        for hypothesis, of_image in zip(hypotheses, references, strict=True)
    ]


def ngrams(words: Words) -> Counter[Words]:
    """Count the runs of 1 to `MAX_NGRAM` words."""
    return Counter(
        words[at : at + n] for n in range(1, MAX_NGRAM + 1) for at in range(len(words) - n + 1)
    )
