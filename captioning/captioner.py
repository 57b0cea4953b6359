"""The Python API: caption images with the model of a checkpoint.

captioner = Captioner.from_checkpoint("outputs/runs/lstm/…/best.ckpt")
captioner("holiday.jpg")
captioner.alternatives("holiday.jpg")                       # the other hypotheses
captioner.attention("holiday.jpg", "a dog on a beach")      # the attention weights of each word
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from captioning import UserError
from captioning.checkpoint import load_decoder, load_encoder, read_model, read_pretrained
from captioning.data.image_files import load_image
from captioning.data.readers import CaptionFolder
from captioning.data.records import Record
from captioning.data.tokenizer import tokenize
from captioning.data.vocabulary import EOS, SPECIALS, Vocabulary
from captioning.features.encoder import Encoder
from captioning.metrics.reward import CiderReward
from captioning.search.beam import Hypotheses, beam_search
from captioning.search.rerank import NeighbourRerank, Rerank

ImageLike = str | Path | Image.Image


class Captioner:
    """An encoder, a decoder and a vocabulary.

    `search(decoder, features)` is beam search of width 5 unless another is given; its hypotheses
    are reordered by `rerank(hypotheses, features)`, if any.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module,
        vocabulary: Vocabulary,
        search: Any = None,
        rerank: Rerank | None = None,
    ):
        self.encoder = encoder
        self.decoder = decoder.eval()
        self.vocabulary = vocabulary
        self.search = search or partial(beam_search, width=5)
        self.rerank = rerank

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
        return cls(encoder.to(device), decoder.to(device), vocabulary)

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
        from captioning.features.datamodule import load_records, open_store

        records = load_records(CaptionFolder(str(folder), skip_unreadable=True))
        records, store = open_store(
            records, self.encoder, str(features_root), str(self.device), True
        )
        training = [record for record in records if record.split == "train"]
        rerank = rerank or NeighbourRerank(CiderReward)
        self.rerank = rerank.fit(training, store.get_features, self.vocabulary)
        return training

    def __call__(self, image: ImageLike) -> str:
        """Return the caption of one image."""
        return self.captions([image])[0]

    def captions(self, images: Iterable[ImageLike]) -> list[str]:
        """Return one caption per image, all in one batch. Raises UserError for a bad file."""
        inputs = [self._preprocess(image) for image in images]
        return self.captions_of(torch.cat(inputs)) if inputs else []

    def captions_of(self, images: UInt8[Tensor, "batch 3 height width"]) -> list[str]:
        """Return one caption per image of a batch of what `encoder.preprocess` returns."""
        features = self.encoder(images)
        tokens = self.hypotheses(features).tokens[:, 0]
        return [self.vocabulary.decode(row) for row in tokens.tolist()]

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
