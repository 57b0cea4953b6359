"""Semantic score, BERT similarity and BERTScore, from the tokens of a frozen BERT."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from captioning.metrics.bert_similarity import Tokens, pool_tokens


class WeightedText(NamedTuple):
    """A text's unit vectors and their weights, by a `Corpus`."""

    vectors: Float[Tensor, "time dim"]
    weights: Float[Tensor, " time"]  # they add up to 1
    sentence: Float[Tensor, " dim"]  # the unit vector of the weighted mean
    pooled: Float[Tensor, " dim"]  # that of the plain mean, with nothing subtracted


class Corpus(NamedTuple):
    """Document frequencies and the mean token vector of the references of a set of images.

    All vectors of a BERT share a large part; with the `mean` subtracted, cosines tell texts apart
    (Mu and Viswanath 2018, "All-but-the-Top").
    """

    images: int
    frequency: Counter[int]
    mean: Float[Tensor, " dim"]
    tokens: int

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> Corpus:
        """Count in the references of all images."""
        frequency: Counter[int] = Counter()
        for texts in references:
            frequency.update({token for text in texts for token in text.ids.tolist()})
        vectors = [text.vectors for texts in references for text in texts]
        tokens = sum(map(len, vectors))
        mean = torch.stack([of_text.sum(0) for of_text in vectors]).sum(0) / tokens
        return cls(len(references), frequency, mean, tokens)

    @classmethod
    def merged(cls, parts: Sequence[Corpus]) -> Corpus:
        """Return the corpus of all images from those of disjoint parts of them."""
        images, frequencies, means, tokens = zip(*parts, strict=True)
        mean = torch.tensor(tokens) / sum(tokens) @ torch.stack(means)
        return cls(sum(images), sum(frequencies, Counter()), mean, sum(tokens))

    def weigh(self, text: Tokens) -> WeightedText:
        """Subtract the mean, and weigh tokens by 1 + log((1 + images) / (1 + images with it))."""
        images_with = [self.frequency[token] for token in text.ids.tolist()]
        idf = [1 + math.log((1 + self.images) / (1 + count)) for count in images_with]
        weights = torch.tensor(idf) / sum(idf)
        vectors = text.vectors - self.mean
        sentence = normalize(weights @ vectors, dim=0)
        return WeightedText(normalize(vectors), weights, sentence, pool_tokens([text])[0])


Texts = Sequence[WeightedText]


def semantic(hypotheses: Texts, references: Sequence[Texts]) -> Float[Tensor, " image"]:
    """Return the semantic score of each hypothesis, -1 to 1: the mean of three cosines.

    Precision: each token of the hypothesis with the closest token of any reference. Recall: each
    token of a reference with the closest of the hypothesis, the mean over references. Both
    weighted, and greedy as in BERTScore (Zhang et al. 2020). Sentence: the weighted mean vectors of
    hypothesis and reference (Arora et al. 2017), the mean over references. A value holds for one
    set of references and one BERT.
    """
    scores = []
    for hypothesis, of_image in zip(hypotheses, references, strict=True):
        cosines = hypothesis.vectors @ torch.cat([text.vectors for text in of_image]).T
        precision = hypothesis.weights @ cosines.amax(1)
        # The weights of each reference add up to 1, and so to their number in all.
        weights = torch.cat([text.weights for text in of_image])
        recall = cosines.amax(0) @ weights / len(of_image)
        sentence = torch.stack([text.sentence for text in of_image]) @ hypothesis.sentence
        scores.append((precision + recall + sentence.mean()) / 3)
    return torch.stack(scores)


def mean_cosine(hypotheses: Texts, references: Sequence[Texts]) -> Float[Tensor, " image"]:
    """Return the BERT similarity of each hypothesis, -1 to 1: its mean cosine to the references."""
    return torch.stack([row.mean() for row in _cosines(hypotheses, references)])


def best_cosine(hypotheses: Texts, references: Sequence[Texts]) -> Float[Tensor, " image"]:
    """Return the cosine of each hypothesis to the closest reference, -1 to 1."""
    return torch.stack([row.max() for row in _cosines(hypotheses, references)])


def _cosines(hypotheses: Texts, references: Sequence[Texts]) -> list[Float[Tensor, " reference"]]:
    return [
        torch.stack([text.pooled for text in of_image]) @ hypothesis.pooled
        for hypothesis, of_image in zip(hypotheses, references, strict=True)
    ]


def bert_score(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> Float[Tensor, " image"]:
    """Return BERTScore's F1 with the best reference (Zhang et al. 2020); no idf, no baseline.

    torchmetrics 1.9 compares captions with another image's references (its issue 2728).
    """
    scores = []
    for hypothesis, of_image in zip(hypotheses, references, strict=True):
        best = torch.tensor(0.0)
        for reference in of_image:
            # Without BERT's own first and last token.
            a, b = (normalize(text.vectors[1:-1]) for text in (hypothesis, reference))
            cosines = a @ b.T
            if cosines.numel():
                precision, recall = cosines.amax(1).mean(), cosines.amax(0).mean()
                best = torch.maximum(best, 2 * precision * recall / (precision + recall))
        scores.append(best)
    return torch.stack(scores)
