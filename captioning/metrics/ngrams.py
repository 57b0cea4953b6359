"""Tokenized captions and their n-grams, for BLEU, ROUGE-L, CIDEr-D, METEOR and SPICE."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from captioning import UserError
from captioning.data.tokenizer import tokenize

Words = tuple[str, ...]
MAX_NGRAM = 4


@lru_cache(maxsize=2**17)  # references are scored after every epoch
def _split_words(caption: str) -> Words:
    return tuple(tokenize(caption))


def tokenize_captions(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> list[tuple[Words, list[Words]]]:
    """Return, for each image, the words of its hypothesis and of its references.

    Raises UserError if the two differ in length, are empty, or an image has no reference.
    """
    if len(hypotheses) != len(references):
        raise UserError(f"{len(hypotheses)} hypotheses but references of {len(references)} images")
    if not hypotheses:
        raise UserError("there is no caption to score")
    for number, of_image in enumerate(references):
        if isinstance(of_image, str) or not of_image:
            raise UserError(f"references[{number}] is {of_image!r}; give a list of captions")
    return [
        (_split_words(hypothesis), [_split_words(reference) for reference in of_image])
        for hypothesis, of_image in zip(hypotheses, references, strict=True)
    ]


def count_ngrams(words: Words) -> Counter[Words]:
    """Count the n-grams of 1 to `MAX_NGRAM` words."""
    return Counter(
        words[at : at + n] for n in range(1, MAX_NGRAM + 1) for at in range(len(words) - n + 1)
    )
