"""How well captions fit an image, by models fitted in closed form to a training split.

`image_fit` needs no reference, `reference_fit` compares with references, `fit` joins the two. They
learn from training images and their captions alone; no human judgement is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from captioning import UserError
from captioning.data.progress import progress_bar
from captioning.data.records import Record
from captioning.features.store import FeatureStore
from captioning.metrics.bert_similarity import TextEncoder, pool_tokens
from captioning.metrics.common_words import CommonWords, average_by_image
from captioning.models.stored_weights import check_shapes, read_safetensors, write_safetensors
from captioning.search.rerank import ImageKernel, KernelRidge, pool_features, root_pool

TEMPERATURE, RIDGE = 0.6, 0.3  # as NeighbourRerank has them
MAX_IMAGES = 10_000  # of training; the regression's memory grows with their square
CHUNK = 2000  # captions embedded at once
VERSION = 1  # of the files

log = logging.getLogger(__name__)


class FitText(NamedTuple):
    """A caption as two unit vectors: one to compare with images, one with references."""

    for_image: Float[Tensor, " dim"]
    for_references: Float[Tensor, " dim"]


Texts = Sequence[FitText]


def image_fit(
    hypotheses: Texts, references: Sequence[Texts], images: Float[Tensor, "image dim"]
) -> Float[Tensor, " image"]:
    """Return the cosine, -1 to 1, of each caption with what `FitModel` expects of its image."""
    return (torch.stack([text.for_image for text in hypotheses]) * images).sum(1)


def reference_fit(
    hypotheses: Texts, references: Sequence[Texts], images: Tensor | None = None
) -> Float[Tensor, " image"]:
    """Return half the mean and half the best cosine, -1 to 1, of each caption to its references."""
    cosines = [
        torch.stack([text.for_references for text in of_image]) @ hypothesis.for_references
        for hypothesis, of_image in zip(hypotheses, references, strict=True)
    ]
    return torch.stack([(row.mean() + row.max()) / 2 for row in cosines])


def joint_fit(
    hypotheses: Texts, references: Sequence[Texts], images: Float[Tensor, "image dim"]
) -> Float[Tensor, " image"]:
    """Return two thirds of `reference_fit` and a third of `image_fit`, -1 to 1."""
    arguments = hypotheses, references, images
    return (2 * reference_fit(*arguments) + image_fit(*arguments)) / 3


class FitModel:
    """Vectors of captions, and of the captions to expect of an image.

    A caption's vector for images joins two of length 1: its mean BERT vector, whitened by the
    covariance within the captions of an image (Hatch et al. 2006), and its common words. Kernel
    ridge regression predicts it from an image's features. The vector for references is the same
    scaled by a model of what the captions of an image share and of what they do not (PLDA, Ioffe
    2006): what differs between the captions of one image counts less.
    """

    def __init__(self, words: CommonWords, tensors: dict[str, Tensor], text_encoder: TextEncoder):
        self.words = words
        self.text_encoder = text_encoder
        self.tensors = tensors
        self.kernel = ImageKernel(tensors["features"].float(), TEMPERATURE)
        self.coefficients = tensors["coefficients"].float()

    @classmethod
    def fit(
        cls, records: Sequence[Record], store: FeatureStore, text_encoder: TextEncoder
    ) -> FitModel:
        """Fit the models to training records, `MAX_IMAGES` of them, evenly spaced.

        None of these images may be scored. Raises UserError if no image has several captions.
        """
        records = [record for record in records if record.captions]
        records = records[:: -(-len(records) // MAX_IMAGES) or 1]
        captions = [list(record.captions) for record in records]
        counts = [len(of_image) for of_image in captions]
        if sum(count > 1 for count in counts) < 2:
            raise UserError(
                "image_fit, reference_fit and fit need two training images or more, and better "
                "hundreds, with several captions each"
            )
        words = CommonWords.of(captions)
        texts = list(chain.from_iterable(captions))
        starts = progress_bar(range(0, len(texts), CHUNK), "embedding", delay=2)
        chunks = (text_encoder.tokens(texts[start : start + CHUNK]) for start in starts)
        sentences = torch.cat([pool_tokens(chunk) for chunk in chunks])
        sentence_mean, sentence_map = sentences.mean(0), within_whitening(sentences, counts)
        joined = join(sentences, words.vectors(texts), sentence_mean, sentence_map)
        features = pool_features(records, store)
        targets = average_by_image(joined, counts)
        regression = KernelRidge(features, TEMPERATURE, RIDGE)
        reference_mean = joined.mean(0)
        tensors = {
            "word_frequency": words.frequency,
            "sentence_mean": sentence_mean,
            "sentence_map": sentence_map,
            "reference_mean": reference_mean,
            "reference_map": plda(joined - reference_mean, counts),
            "features": features.half(),
            "coefficients": regression.coefficients(targets - targets.mean(0)).half(),
            "target_mean": targets.mean(0),
        }
        return cls(words, tensors, text_encoder)

    def read(
        self, captions: Sequence[str], sentences: Float[Tensor, "caption dim"] | None = None
    ) -> list[FitText]:
        """Return the vectors of captions; `sentences` are what `pool_tokens` makes of them."""
        if sentences is None:
            sentences = pool_tokens(self.text_encoder.tokens(captions))
        part = self.tensors
        joined = join(
            sentences, self.words.vectors(captions), part["sentence_mean"], part["sentence_map"]
        )
        for_references = normalize((joined - part["reference_mean"]) @ part["reference_map"])
        return [FitText(*pair) for pair in zip(normalize(joined), for_references, strict=True)]

    def expect(
        self, features: Float[Tensor, "image *region feature"]
    ) -> Float[Tensor, "image dim"]:
        """Return the unit vector of the captions to expect of images with these features."""
        kernel = self.kernel(root_pool(features.float()))
        return normalize(kernel @ self.coefficients + self.tensors["target_mean"])

    def image_fit(
        self, features: Float[Tensor, "image *region feature"], captions: Sequence[Sequence[str]]
    ) -> list[Float[Tensor, " caption"]]:
        """Return how well each of an image's captions fits it, as the score of that name."""
        texts = iter(self.read([text for of_image in captions for text in of_image]))
        return [
            torch.stack([next(texts).for_image for _ in of_image]) @ image
            for of_image, image in zip(captions, self.expect(features), strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        metadata = {"version": str(VERSION), "words": json.dumps(self.words.words)}
        write_safetensors(path, self.tensors, metadata)

    @classmethod
    def load(cls, path: Path, text_encoder: TextEncoder) -> FitModel:
        """Read what `save` wrote. Raises an exception of any kind for another file."""
        tensors, metadata = read_safetensors(path)
        words = json.loads(metadata["words"])
        joined, sentence = len(tensors["target_mean"]), len(tensors["sentence_mean"])
        images = len(tensors["features"])
        shapes = {
            "word_frequency": (len(words),),
            "sentence_mean": (joined - len(words),),
            "sentence_map": (sentence, sentence),
            "reference_mean": (joined,),
            "reference_map": (joined, joined),
            "coefficients": (images, joined),
        }
        check_shapes(tensors, shapes)
        return cls(CommonWords(words, tensors["word_frequency"]), tensors, text_encoder)


@dataclass
class ImageFit:
    """Makes a `FitModel`, or reads it: it is kept beside the feature store."""

    text_encoder: TextEncoder

    def fit(self, records: Sequence[Record], store: FeatureStore) -> FitModel:
        """Return the model of these training records."""
        encoder = self.text_encoder
        vocabulary = json.dumps(encoder.tokenizer.get_vocab(), sort_keys=True)
        start = f"{VERSION} {store.folder.name} {encoder.max_length} {vocabulary}"
        digest = hashlib.sha256(start.encode())
        for record in records:
            digest.update(json.dumps([record.image_id, record.captions]).encode())
        for weight in encoder.model.state_dict().values():
            digest.update(weight.cpu().numpy().tobytes())
        path = store.folder.with_name(f"fit-{digest.hexdigest()[:16]}.safetensors")
        if path.is_file():
            try:
                return FitModel.load(path, encoder)
            except Exception:  # a damaged file raises errors of no common class
                log.warning("%s is damaged and is made again", path)
        model = FitModel.fit(records, store, encoder)
        model.save(path)
        return model


def join(
    sentences: Float[Tensor, "caption dim"],
    words: Float[Tensor, "caption word"],
    mean: Float[Tensor, " dim"],
    whitening: Float[Tensor, "dim dim"],
) -> Float[Tensor, "caption joined"]:
    """Return each caption's whitened sentence vector, of length 1, and its words side by side."""
    return torch.cat([normalize((sentences - mean) @ whitening), words], 1)


def within_whitening(
    vectors: Float[Tensor, "caption dim"], counts: Sequence[int]
) -> Float[Tensor, "dim dim"]:
    """Return the matrix that makes the covariance within the captions of an image the identity.

    The mean variance is added to it first (a ridge), so that no direction is blown up.
    """
    values, directions = torch.linalg.eigh(_within_covariance(vectors, counts).double())
    scales = (values.clamp(min=0) + values.mean().clamp(min=1e-12)).rsqrt()
    return (directions * scales @ directions.T).float()


def plda(centred: Float[Tensor, "caption dim"], counts: Sequence[int]) -> Float[Tensor, "dim dim"]:
    """Return the matrix after which cosines say whether two captions are of one image.

    It whitens, and scales each direction by the root of b / (1 + b), b being the variance between
    images: as much of a caption's vector as its image is expected to have.
    """
    whitening = within_whitening(centred, counts)
    whitened = centred @ whitening
    means = average_by_image(whitened, counts)
    noise = _within_covariance(whitened, counts) * (1 / torch.tensor(counts).float()).mean()
    between = means.T @ means / len(means) - noise
    values, directions = torch.linalg.eigh(between.double())
    values = values.clamp(min=0)
    return whitening @ (directions * (values / (1 + values)).sqrt()).float()


def _within_covariance(
    vectors: Float[Tensor, "caption dim"], counts: Sequence[int]
) -> Float[Tensor, "dim dim"]:
    means = average_by_image(vectors, counts)
    residuals = vectors - means.repeat_interleave(torch.tensor(counts), 0)
    return residuals.T @ residuals / (len(vectors) - len(counts))
