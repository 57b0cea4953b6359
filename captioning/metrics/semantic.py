"""Semantic score: do the words of a caption mean what people wrote, and theirs what it says?

Tokens of a frozen BERT enter (bert_similarity.py), one number a caption leaves. Built to follow
human judgement with text alone; `python -m captioning.judge` measures how well it does. BERTScore
is here too, plain, as a number that others report.
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
from captioning.metrics.bert_similarity import Tokens, pooled


class Weighed(NamedTuple):
    """A text as a `Corpus` sees it: unit vectors, weights that add up to 1, one unit vector.

    `pooled` is the unit vector of the plain mean, as of `bert_similarity.pooled`.
    """

    vectors: Float[Tensor, "time dim"]
    weights: Float[Tensor, " time"]
    sentence: Float[Tensor, " dim"]
    pooled: Float[Tensor, " dim"]


class Corpus(NamedTuple):
    """What the references of a set of images have in common, which tells no two of them apart.

    `mean` is the mean of their token vectors. All vectors of a BERT share a large part, those of
    captions more; taken off, cosines tell texts apart (Mu and Viswanath 2018, "All-but-the-Top";
    for captions Zhou et al. 2023, "Test-Time Distribution Normalization"). A token weighs
    1 + log((1 + images) / (1 + images with it)), BERTScore's idf and 1: none weighs nothing.
    """

    images: int
    frequency: Counter[int]
    mean: Float[Tensor, " dim"]
    tokens: int

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> Corpus:
        """Measure the references of all images. Raises UserError for one image alone."""
        if len(references) < 2:
            raise UserError("the semantic score compares images; give two or more, not one")
        frequency: Counter[int] = Counter()
        for texts in references:
            frequency.update({token for text in texts for token in text.ids.tolist()})
        every = [text.vectors for texts in references for text in texts]
        tokens = sum(map(len, every))
        mean = torch.stack([vectors.sum(0) for vectors in every]).sum(0) / tokens
        return cls(len(references), frequency, mean, tokens)

    @classmethod
    def merged(cls, parts: Sequence[Corpus]) -> Corpus:
        """Return the corpus of all images from those of disjoint parts of them."""
        images, frequencies, means, tokens = zip(*parts, strict=True)
        share = torch.tensor(tokens) / sum(tokens)
        mean = share @ torch.stack(means)
        return cls(sum(images), sum(frequencies, Counter()), mean, sum(tokens))

    def weigh(self, text: Tokens) -> Weighed:
        """Return a text, reference or hypothesis, in the terms of this corpus."""
        rarity = [
            1 + math.log((1 + self.images) / (1 + self.frequency[token]))
            for token in text.ids.tolist()
        ]
        weights = torch.tensor(rarity) / sum(rarity)
        vectors = text.vectors - self.mean
        sentence = normalize(weights @ vectors, dim=0)
        return Weighed(normalize(vectors), weights, sentence, pooled([text])[0])


Texts = Sequence[Weighed]


def semantic(hypotheses: Texts, references: Sequence[Texts]) -> Float[Tensor, " image"]:
    """Return the semantic score of each hypothesis, -1 to 1: the mean of three cosines.

    Precision: each token of the hypothesis with the closest token of any reference, for what one
    of five people saw is there (Yi, Deng and Hu 2020 join references likewise). Recall: each token
    of a reference with the closest of the hypothesis, the mean over references, for what all saw
    matters more. Both weighted, and greedy as in BERTScore (Zhang et al. 2020). Sentence: the
    weighted mean vectors of hypothesis and reference (Arora et al. 2017), the mean over references.

    Weights and mean come from the references: a value holds for one set of images and one BERT.
    With all-MiniLM-L6-v2 on Flickr8k people reach 0.61, captions of a random picture 0.13.
    """
    scores = []
    for hypothesis, of_image in zip(hypotheses, references, strict=True):
        cosines = hypothesis.vectors @ torch.cat([one.vectors for one in of_image]).T
        precision = hypothesis.weights @ cosines.amax(1)
        # The weights of each reference add up to 1, and so to their number in all.
        weights = torch.cat([one.weights for one in of_image])
        recall = cosines.amax(0) @ weights / len(of_image)
        sentence = torch.stack([one.sentence for one in of_image]) @ hypothesis.sentence
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
        torch.stack([one.pooled for one in of_image]) @ hypothesis.pooled
        for hypothesis, of_image in zip(hypotheses, references, strict=True)
    ]


def bert_score(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> Float[Tensor, " image"]:
    """Return BERTScore's F1 with the best reference, no idf, no baseline (Zhang et al. 2020).

    Of the last layer, where the paper takes one chosen for each model; name the BERT beside the
    number. Not by torchmetrics 1.9, which sorts texts by length and back the wrong way, so that a
    caption meets another image's references (its issue 2728). An empty caption scores 0.
    """

    def unit(text: Tokens) -> Float[Tensor, "time dim"]:
        return normalize(text.vectors[1:-1])  # without BERT's own two marks

    scores = []
    for hypothesis, of_image in zip(hypotheses, references, strict=True):
        best, own = torch.tensor(0.0), unit(hypothesis)
        for reference in of_image:
            cosines = own @ unit(reference).T
            if cosines.numel():
                precision, recall = cosines.amax(1).mean(), cosines.amax(0).mean()
                best = torch.maximum(best, 2 * precision * recall / (precision + recall))
        scores.append(best)
    return torch.stack(scores)
