"""Captions as vectors of the words that many training images' captions have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from captioning.data.tokenizer import tokenize

SHARE = 1 / 300  # of the training images, at least two of them: 20 of Flickr8k's 6,000


class CommonWords(NamedTuple):
    """The common words, and the share of the training captions that have each."""

    words: list[str]
    frequency: Float[Tensor, " word"]

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> CommonWords:
        """Count in the captions of each training image. None may be common in a small set."""
        by_caption = [[set(tokenize(text)) for text in of_image] for of_image in captions]
        images = Counter(word for of_image in by_caption for word in set().union(*of_image))
        counts = Counter(word for of_image in by_caption for words in of_image for word in words)
        fewest = max(2, SHARE * len(captions))
        words = sorted(word for word, count in images.items() if count >= fewest)
        total = sum(map(len, captions))
        return cls(words, torch.tensor([counts[word] / total for word in words]))

    def vectors(self, captions: Sequence[str]) -> Float[Tensor, "caption word"]:
        """Return a unit vector for each caption: 1 for each word that it has, centred and scaled.

        Divided by the fourth root of their frequency, rare words weigh more, but not much more.
        """
        ids = {word: number for number, word in enumerate(self.words)}
        vectors = torch.zeros(len(captions), len(ids))
        for vector, caption in zip(vectors, captions, strict=True):
            vector[[ids[word] for word in tokenize(caption) if word in ids]] = 1
        return normalize((vectors - self.frequency) / self.frequency**0.25)


def average_by_image(
    vectors: Float[Tensor, "caption dim"], counts: Sequence[int]
) -> Float[Tensor, "image dim"]:
    """Return the mean of each image's captions; `counts` says how many each image has, in order."""
    return torch.stack([of_image.mean(0) for of_image in vectors.split(list(counts))])
