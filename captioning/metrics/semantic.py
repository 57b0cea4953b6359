"""Semantic score, BERT similarity and BERTScore, from the tokens of a frozen BERT.

The semantic score is built to follow human judgement with text alone; `python -m captioning.judge`
measures how well each does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from captioning import UserError
from captioning.metrics.bert_similarity import Tokens, pool_tokens


class WeightedText(NamedTuple):
    """A text's unit vectors and weights, which add up to 1, by a `Corpus`.

    `sentence` is the unit vector of the weighted mean, `pooled` that of the plain one.
    """

    vectors: Float[Tensor, "time dim"]
    weights: Float[Tensor, " time"]
    sentence: Float[Tensor, " dim"]
    pooled: Float[Tensor, " dim"]


class Corpus(NamedTuple):
    """Document frequencies and the mean token vector of the references of a set of images.

    All vectors of a BERT share a large part; with the `mean` taken off, cosines tell texts apart
    (Mu and Viswanath 2018, "All-but-the-Top"; for captions Zhou et al. 2023, "Test-Time
    Distribution Normalization").
    """

    images: int
    frequency: Counter[int]
    mean: Float[Tensor, " dim"]
    tokens: int

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> Corpus:
        """Count in the references of all images. Raises UserError for one image alone."""
        if len(references) < 2:
            raise UserError("the semantic score compares images; give two or more, not one")
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

    Precision: each token of the hypothesis with the closest token of any reference (Yi, Deng and Hu
    2020 join references likewise). Recall: each token of a reference with the closest of the
    hypothesis, the mean over references. Both weighted, and greedy as in BERTScore (Zhang et al.
    2020). Sentence: the weighted mean vectors of hypothesis and reference (Arora et al. 2017), the
    mean over references. A value holds for one set of references and one BERT: with
    all-MiniLM-L6-v2 on Flickr8k humans reach 0.61, captions of a random image 0.13.
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
    """Return BERTScore's F1 with the best reference, no idf, no baseline (Zhang et al. 2020).

    Of the last layer, where the paper chooses one for each model. An empty caption scores 0.
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
