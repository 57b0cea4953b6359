"""A checkpoint in, captions of new pictures out: in a notebook, a script or the `caption` verb.

captioner = Captioner.from_checkpoint("outputs/runs/lstm/…/best.ckpt")
captioner("holiday.jpg")
captioner.alternatives("holiday.jpg")                       # what else the search found
captioner.attention("holiday.jpg", "a dog on a beach")      # where it looks for each word
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from captioning import UserError
from captioning.config.build import build_decoder, build_stored, check_weights
from captioning.data.image_files import load_image
from captioning.data.readers import CaptionFolder
from captioning.data.records import Record
from captioning.data.tokenizer import tokenize
from captioning.data.vocabulary import EOS, SPECIALS, Vocabulary
from captioning.features.datamodule import load_records, open_store
from captioning.features.encoder import Encoder
from captioning.metrics.reward import CiderReward
from captioning.output.safetensors_folder import LARGEST_IMAGE, read_pretrained
from captioning.search.beam import Hypotheses, beam_search
from captioning.search.rerank import NeighbourRerank, Rerank
from captioning.training.module import FORMAT_VERSION

Picture = str | Path | Image.Image


class Captioner:
    """An encoder, a decoder and a vocabulary; in eval mode, on the CPU unless moved.

    `search(decoder, features)` is beam search of width 5 unless another is given; what it finds is
    reordered by `rerank(hypotheses, features)`, if any.
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
        """Load best.ckpt or last.ckpt; nothing in the file is run.

        `encoder_weights` is where the encoder's weights are on this machine, if not where they
        were in training; other weights than those of training are refused.
        """
        return cls._of(path, read_checkpoint(path), encoder_weights, device)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> Captioner:
        """Load a folder of `captioning.export format=safetensors`, which has the encoder in it.

        No file of it is a pickle and nothing is run: a stranger's that does not add up is refused.
        """
        return cls._of(folder, read_pretrained(folder), None, device)

    @classmethod
    def _of(
        cls, path: str | Path, checkpoint: dict[str, Any], weights: str | None, device: str
    ) -> Captioner:
        encoder = load_encoder(path, checkpoint, weights)
        decoder = load_decoder(path, checkpoint, encoder.feature_shape[-1])
        captioner = cls(encoder, decoder, Vocabulary(checkpoint["captioning"]["vocabulary"]))
        captioner.encoder.to(device)
        captioner.decoder.to(device)
        return captioner

    def fit_rerank(
        self,
        folder: str | Path,
        rerank: NeighbourRerank | None = None,
        features_root: str | Path = "outputs/features",
    ) -> list[Record]:
        """Rerank what the search finds by the training captions of a data folder, from now on.

        As `rerank=neighbours` does; a wide beam gives it most to choose from. All images of the
        folder are encoded, unless their features are below `features_root`; what cannot be read is
        left out with a warning. Returns the training images. Raises UserError where no captions are
        found in the folder, or for fewer than two training images.
        """
        records = load_records(CaptionFolder(str(folder), skip_unreadable=True))
        device = str(next(self.decoder.parameters()).device)
        records, store = open_store(records, self.encoder, str(features_root), device, True)
        training = [record for record in records if record.split == "train"]
        rerank = rerank or NeighbourRerank(CiderReward)
        self.rerank = rerank.fit(training, store.get_features, self.vocabulary)
        return training

    def __call__(self, picture: Picture) -> str:
        """Return the caption of one picture."""
        return self.captions([picture])[0]

    def captions(self, pictures: Iterable[Picture]) -> list[str]:
        """Return one caption a picture, all in one batch. Raises UserError for a bad file."""
        images = [self._image(one) for one in pictures]
        return self.captions_of(torch.cat(images)) if images else []

    def captions_of(self, images: Float[Tensor, "batch 3 height width"]) -> list[str]:
        """Return one caption an image of a preprocessed batch."""
        tokens = self.hypotheses(self._encode(images)).tokens[:, 0]
        return [self.vocabulary.decode(row) for row in tokens.tolist()]

    def hypotheses(self, features: Float[Tensor, "batch *region feature"]) -> Hypotheses:
        """Return what search and rerank make of features, best first."""
        found = self.search(self.decoder, features)
        return self.rerank(found, features) if self.rerank else found

    def features(self, picture: Picture) -> Float[Tensor, "1 *region feature"]:
        """Encode one picture: to ask more than one thing of it and see it once."""
        return self._encode(self._image(picture))

    def alternatives(self, picture: Picture | Tensor) -> list[tuple[str, float]]:
        """Return what the search found for one picture, and the scores that it orders them by.

        Best first, each text once; a beam of width 5 finds up to five. The first is the caption.
        """
        features = picture if isinstance(picture, Tensor) else self.features(picture)
        found = self.hypotheses(features)
        scores: dict[str, float] = {}
        for row, score in zip(found.tokens[0].tolist(), found.scores[0].tolist(), strict=True):
            if score > -math.inf:  # what fills up a beam for which there are too few sentences
                scores.setdefault(self.vocabulary.decode(row), score)
        return list(scores.items())

    @torch.inference_mode()
    def attention(
        self, picture: Picture | Tensor, caption: str
    ) -> list[tuple[str, Float[Tensor, "height width"]]]:
        """Return where the model looks to choose each word of a caption, and `<eos>` after them.

        Shares of the encoder's regions, which sum to 1: its grid's rows from the top, columns from
        the left. The caption may be anybody's; the model reads words that it does not know as
        `<unk>`. Raises UserError for a model that does not show where it looks.
        """
        if not hasattr(self.decoder, "attention"):
            raise UserError(
                f"{type(self.decoder).__name__} does not show where it looks; "
                "attention is there to see after training with model=attention or model=updown"
            )
        features = picture if isinstance(picture, Tensor) else self.features(picture)
        tokens = torch.tensor([self.vocabulary.encode(caption)[:-1]], device=features.device)
        weights = self.decoder.attention(features, tokens)[0].cpu()
        side = math.isqrt(weights.shape[-1])  # every encoder sees a square
        words = [*tokenize(caption), SPECIALS[EOS]]
        return list(zip(words, weights.unflatten(-1, (side, side)), strict=True))

    def _image(self, picture: Picture) -> Float[Tensor, "1 3 height width"]:
        opened = picture if isinstance(picture, Image.Image) else load_image(picture)
        return self.encoder.preprocess(opened)[None]

    def _encode(self, images: Tensor) -> Tensor:
        return self.encoder(images.to(next(self.decoder.parameters()).device))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint of this project with `weights_only`: plain types and tensors, no code.

    Raises UserError where the file is missing, unsafe, or not one of ours.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint {path}; a run leaves best.ckpt in its folder")
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(one.compress_type for one in archive.infolist())  # torch packs nothing
            if packed or archive.testzip():  # checksums, which torch.load does not look at
                raise zipfile.BadZipFile
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # what a foreign file makes of the reader has no common class
        what = "is not a checkpoint of captioning.train, or is damaged"
        if zipfile.is_zipfile(path):
            what = "holds more than numbers and plain types, or is damaged: it is not loaded safely"
        raise UserError(f"{path} {what}; a run leaves best.ckpt in its folder") from None
    contents = checkpoint.get("captioning") if isinstance(checkpoint, dict) else None
    if not isinstance(contents, dict) or "vocabulary" not in contents:
        raise UserError(f"{path} is not a checkpoint of captioning.train")
    if contents.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {contents.get('format_version')}, "
            f"this release reads {FORMAT_VERSION}"
        )
    if wrong := _wrong(checkpoint, contents):
        raise UserError(f"{path} is damaged: {wrong}; a run leaves best.ckpt in its folder")
    return checkpoint


def _wrong(checkpoint: dict[str, Any], contents: dict[str, Any]) -> str:
    """Say which part of a checkpoint is not what training stores there, "" for none."""
    config, weights = contents.get("config"), checkpoint.get("state_dict")
    words, vocabulary = isinstance(contents["vocabulary"], list), contents["vocabulary"]
    kept = ("encoder", "model")
    sound = {
        "its vocabulary is not a list of words": words
        and all(isinstance(word, str) for word in vocabulary),
        "it has no config of encoder and model": isinstance(config, dict)
        and all(isinstance(config.get(key), dict) for key in kept),
        "it has no identity of its encoder": isinstance(contents.get("encoder"), dict),
        "its weights are not plain tensors": isinstance(weights, dict)
        and all(isinstance(key, str) and _is_plain(one) for key, one in weights.items()),
    }
    return next((what for what, right in sound.items() if not right), "")


def _is_plain(value: Any) -> bool:
    return type(value) is Tensor and value.layout is torch.strided and not value.is_quantized


def load_encoder(
    path: str | Path, checkpoint: dict[str, Any], weights: str | None = None
) -> Encoder:
    """Make the encoder that a checkpoint was trained with; `weights` is as for `from_checkpoint`.

    Raises UserError where the one of this machine makes other features.
    """
    contents = checkpoint["captioning"]
    options = {"_target_": "captioning.features.encoder.Encoder"} | contents["config"]["encoder"]
    if weights:
        options["weights"] = weights
    size = options.get("image_size")
    if isinstance(size, int) and size > LARGEST_IMAGE:
        raise UserError(f"{path}: encoder.image_size={size}: it is 1 to {LARGEST_IMAGE}")
    encoder = build_stored(options, "features")
    if not isinstance(encoder, Encoder):
        raise UserError(f"{path}: {options['_target_']} is not an encoder")
    if encoder.identity != contents["encoder"]:
        raise UserError(
            f"{path} was trained on features of {contents['encoder']}, but the encoder here "
            f"is {encoder.identity}; name the file of the weights that it was trained with"
        )
    return encoder


def load_decoder(path: str | Path, checkpoint: dict[str, Any], feature_dim: int) -> nn.Module:
    """Make a checkpoint's decoder with its weights, in eval mode."""
    contents = checkpoint["captioning"]
    model, words = contents["config"]["model"], len(contents["vocabulary"])
    weights = {
        key.removeprefix("decoder."): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith("decoder.")
    }
    try:
        shapes = {key: tuple(value.shape) for key, value in weights.items()}
        check_weights(model, words, feature_dim, shapes)
        decoder = build_decoder(model, words, feature_dim)
        decoder.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: its weights do not fit its own config: {error}") from None
    return decoder.eval()
