"""Is it said anew? Captions and the training captions enter; the closest of the latter leave."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from captioning.data.tokenizer import tokenize
from captioning.metrics.ngrams import count_ngrams

ORDERS = 2  # words, and pairs of words


def nearest(
    captions: Sequence[str], training: Sequence[str], count: int = 3
) -> list[list[tuple[str, float]]]:
    """Return the `count` closest training captions of each caption, and how close, 0 to 1.

    The cosine of their words and pairs of words, where rare ones weigh more (TF-IDF); 1.0 is the
    same sentence. A training caption that occurs twice is returned once.
    """
    texts = list({tuple(tokenize(text)): text for text in training}.values())
    counts = [_terms(text) for text in texts]
    having = Counter(term for terms in counts for term in terms)
    weight = {term: math.log(len(texts) / number) for term, number in having.items()}
    vectors = [_unit(terms, weight) for terms in counts]
    where: dict[tuple[str, ...], list[int]] = {}
    for at, vector in enumerate(vectors):
        for term in vector:
            where.setdefault(term, []).append(at)
    found = []
    for caption in captions:
        cosines: Counter[int] = Counter()
        for term, share in _unit(_terms(caption), weight).items():
            for at in where[term]:
                cosines[at] += share * vectors[at][term]
        found.append([(texts[at], cosine) for at, cosine in cosines.most_common(count)])
    return found


def copied(captions: Sequence[str], training: Sequence[str]) -> float:
    """Return the share of captions that are a training caption, word for word."""
    known = {tuple(tokenize(text)) for text in training}
    return sum(tuple(tokenize(caption)) in known for caption in captions) / len(captions)


def _terms(text: str) -> Counter[tuple[str, ...]]:
    counts = count_ngrams(tuple(tokenize(text)))
    return Counter({term: number for term, number in counts.items() if len(term) <= ORDERS})


def _unit(counts: Counter[tuple[str, ...]], weight: dict) -> dict[tuple[str, ...], float]:
    weighed = {term: number * weight[term] for term, number in counts.items() if weight.get(term)}
    norm = math.sqrt(sum(value**2 for value in weighed.values()))
    return {term: value / norm for term, value in weighed.items()}
