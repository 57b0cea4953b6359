"""How sure a captioner may be of a caption: a calibrated probability, without references."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from captioning.data.records import Record
from captioning.data.vocabulary import PAD, Vocabulary
from captioning.features.store import FeatureStore
from captioning.metrics.common_words import CommonWords, average_by_image
from captioning.models.stored_weights import (
    check_shapes,
    dequantize,
    quantize,
    read_safetensors,
    write_safetensors,
)
from captioning.search.rerank import Standardization, pool_features, root_pool

RIDGE = 1.0


class Confidence:
    """The probability that a caption is as close to what humans say as one of them is.

    That is: by `semantic`, as close to an image's other references as a reference of it is.

    Logistic regression (Platt 1999) on two numbers: the caption's log-probability per word, and the
    cosine between its common words and those that ridge regression expects of the image, from its
    pooled features. It holds for what a search finds that is like the one it was fitted with: of
    samples and of humans' captions, which are less probable, it is too low. `decoder` is the
    SHA-256 of the decoder whose log-probabilities they are.
    """

    def __init__(self, words: CommonWords, tensors: dict[str, Tensor], decoder: str):
        self.words = words
        self.tensors = tensors
        self.decoder = decoder

    @classmethod
    def fit(cls, training: Sequence[Record], store: FeatureStore, decoder: str) -> Confidence:
        """Fit the ridge regression to training images; `calibrate` does the rest."""
        training = [record for record in training if record.captions]
        captions = [record.captions for record in training]
        words = CommonWords.of(captions)
        pooled = pool_features(training, store)
        standardize = Standardization.of(pooled)
        inputs = standardize(pooled)
        vectors = words.vectors([text for of_image in captions for text in of_image])
        targets = average_by_image(vectors, list(map(len, captions)))
        gram = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1])
        tensors = {
            "word_frequency": words.frequency,
            "feature_mean": standardize.mean,
            "feature_scale": standardize.scale,
            "weight": torch.linalg.solve(gram, inputs.T @ (targets - targets.mean(0))).T,
            "bias": targets.mean(0),
        }
        return cls(words, dequantize(quantize(tensors)), decoder)  # as a file will have it

    def calibrate(
        self,
        log_probs: Float[Tensor, " caption"],
        features: Float[Tensor, "caption *region feature"],
        captions: Sequence[str],
        closeness: Float[Tensor, " caption"],
    ) -> None:
        """Fit the logistic regression to captions of images that nothing was trained on.

        `closeness`, 0 to 1, is how often each is as close to the references as one of them.
        """
        inputs = self._inputs(log_probs, features, captions)
        mean, std = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
        weights = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = (inputs - mean) / std @ weights[:2] + weights[2]
            value = binary_cross_entropy_with_logits(logits, closeness.float())
            value = value + 1e-3 * weights[:2].square().sum()
            value.backward()
            return value

        with torch.inference_mode(False), torch.enable_grad():
            optimizer.step(loss)
        slopes = weights.detach()[:2] / std
        self.tensors["slopes"] = slopes
        self.tensors["intercept"] = weights.detach()[2] - slopes @ mean

    def __call__(
        self,
        log_probs: Float[Tensor, " caption"],
        features: Float[Tensor, "caption *region feature"],
        captions: Sequence[str],
    ) -> Float[Tensor, " caption"]:
        """Return the confidence of each caption, 0 to 1, of the image with these features."""
        inputs = self._inputs(log_probs, features, captions)
        return (inputs @ self.tensors["slopes"] + self.tensors["intercept"]).sigmoid()

    def _inputs(
        self, log_probs: Tensor, features: Tensor, captions: Sequence[str]
    ) -> Float[Tensor, "caption 2"]:
        part = self.tensors
        standardize = Standardization(part["feature_mean"], part["feature_scale"])
        inputs = standardize(root_pool(features.float().cpu()))
        expected = normalize(inputs @ part["weight"].T + part["bias"])
        fits = (expected * self.words.vectors(captions)).sum(1)
        return torch.stack([log_probs.float().cpu(), fits], 1)

    @property
    def sha256(self) -> str:
        """Hash all that decides a confidence, but the decoder."""
        digest = hashlib.sha256(json.dumps(self.words.words).encode())
        for name in sorted(self.tensors):
            digest.update(self.tensors[name].numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write a safetensors file, its matrix in int8."""
        metadata = {"words": json.dumps(self.words.words), "decoder": self.decoder}
        write_safetensors(path, quantize(self.tensors), metadata)

    @classmethod
    def load(cls, path: Path) -> Confidence:
        """Read what `save` wrote. Raises ValueError, or one of safetensors, for another file."""
        tensors, metadata = read_safetensors(path)
        tensors = dequantize(tensors)
        words = json.loads(metadata["words"])
        count, features = tensors["weight"].shape
        shapes = {"weight": (len(words), features), "word_frequency": (count,), "bias": (count,)}
        shapes |= {"slopes": (2,), "intercept": ()}
        shapes |= {"feature_mean": (features,), "feature_scale": (features,)}
        check_shapes(tensors, shapes)
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError("not all of its numbers are finite")
        return cls(CommonWords(words, tensors["word_frequency"]), tensors, metadata["decoder"])


@torch.inference_mode()
def caption_log_probs(
    decoder: nn.Module,
    vocabulary: Vocabulary,
    features: Float[Tensor, "caption *region feature"],
    captions: Sequence[str],
) -> Float[Tensor, " caption"]:
    """Return the mean log-probability, in nats, of each caption's words and `<eos>`."""
    encoded = [torch.tensor(vocabulary.encode(text)) for text in captions]
    tokens = nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=PAD)
    tokens = tokens.to(features.device)
    log_probs = decoder(features, tokens[:, :-1]).float().log_softmax(-1)
    is_word = tokens[:, 1:] != PAD
    of_words = log_probs.gather(2, tokens[:, 1:, None])[..., 0] * is_word
    return of_words.sum(1) / is_word.sum(1)


def reliability(
    confidences: Float[np.ndarray, " caption"],
    closeness: Float[np.ndarray, " caption"],
    bins: int = 10,
) -> tuple[float, list[tuple[float, float]]]:
    """Return the expected calibration error, and mean confidence and closeness of each bin.

    Bins hold as many captions each, by confidence (Guo et al. 2017, with bins of equal mass).
    """
    order = np.argsort(confidences, kind="stable")
    pairs = [
        (float(confidences[at].mean()), float(closeness[at].mean()), len(at))
        for at in np.array_split(order, min(bins, len(order)))
    ]
    error = sum(abs(confidence - share) * size for confidence, share, size in pairs)
    return error / len(order), [(confidence, share) for confidence, share, _ in pairs]
