"""Checkpoints and exported folders: read, check and convert them, and load their models.

A checkpoint is Lightning's dictionary with a `captioning` entry beside `state_dict`: format
version, vocabulary, resolved config, and the encoder's identity, which is all that decides its
features. Files may be a stranger's: nothing in them is run.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from captioning import UserError
from captioning.config.build import build_decoder, build_stored
from captioning.config.schema import MOVED
from captioning.data.vocabulary import Vocabulary
from captioning.features.encoder import Encoder
from captioning.models.decoder import Decoder
from captioning.models.old_names import decoder_sha256, from_version_1
from captioning.models.stored_weights import SkipInit, dequantize

FORMAT_VERSION = 2  # in version 1, weights had other names
PRETRAINED = Path(__file__).with_name("pretrained")  # the packaged captioner (`make pretrained`)
LARGEST_CONFIG = 16 << 20  # bytes; a vocabulary of a million words
LARGEST_IMAGE = 1024  # pixels a side; torchvision's largest is 600


def read_model(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, an exported folder, or, for the word `default`, the packaged captioner.

    Raises UserError as `read_checkpoint` and `read_pretrained` do.
    """
    if not str(path):
        raise UserError("no checkpoint is named; type a path, or default")
    if str(path) == "default":
        path = PRETRAINED
        if not path.is_dir():
            raise UserError("the packaged captioner is not there; FLICKR8K=FOLDER make pretrained")
    return read_pretrained(path) if Path(path).is_dir() else read_checkpoint(path)


def read_checkpoint(path: str | Path, name: str = "best.ckpt") -> dict[str, Any]:
    """Read a checkpoint of this project: plain types and tensors, no code.

    Raises UserError if the file is missing, unsafe, damaged, or not one of ours.
    """
    if not Path(path).is_file():
        inside = Path(path, name)
        hint = (
            f"type {shlex.quote(str(inside))}"
            if inside.is_file()
            else f"a run leaves {name} in its folder"
        )
        raise UserError(f"there is no checkpoint {path}; {hint}")
    try:
        checkpoint = _load(path)
    except Exception:  # a foreign file can raise anything
        raise UserError(
            f"{path} is not a checkpoint of captioning.train that can be loaded safely, or is "
            "damaged; a run leaves best.ckpt in its folder"
        ) from None
    return _validated(path, checkpoint)


def read_intact(path: Path) -> dict[str, Any] | None:
    """Return what an intact checkpoint of Lightning holds; None for anything else, or nothing."""
    try:
        checkpoint = _load(path)
    except Exception:  # a foreign file can raise anything
        return None
    return checkpoint if isinstance(checkpoint, dict) and "epoch" in checkpoint else None


def _load(path: str | Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        compressed = any(member.compress_type for member in archive.infolist())  # torch's are not
        if compressed or archive.testzip():  # checksums, which torch.load does not look at
            raise zipfile.BadZipFile
    return torch.load(path, map_location="cpu", weights_only=True)


def read_pretrained(folder: str | Path) -> dict[str, Any]:
    """Read a folder of `captioning.export format=safetensors` as what a checkpoint would hold.

    Raises UserError if a file is missing, too large or damaged.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        best = folder / "best.ckpt"
        if best.is_file():
            raise UserError(f"{folder} is the folder of a run: type {shlex.quote(str(best))}")
        raise UserError(
            f"{folder} holds no captioner; type a run's best.ckpt, or a folder that "
            "captioning.export wrote with format=safetensors"
        )
    try:
        if (folder / "config.json").stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"config.json is larger than {LARGEST_CONFIG >> 20} MB")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        contents = {key: config[key] for key in ("format_version", "vocabulary", "encoder")}
        options = ("name", "features", "image_size", "crop")
        encoder = {key: config["encoder"][key] for key in options}
        encoder["weights"] = file = config["encoder_weights"]
        if file not in (None, "package"):
            encoder["weights"] = str(folder / Path(file).name)
        contents["config"] = {"model": config["model"], "encoder": encoder}
        contents["config"] |= {"name": config.get("name", folder.name), "seed": config.get("seed")}
        content = (folder / "model.safetensors").read_bytes()
        if config.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("model.safetensors is damaged, or of another export")
        weights = dequantize(load(content))
    except Exception as error:  # a foreign file can raise anything
        why = " ".join(f"{type(error).__name__} {error}".split())[:300]
        raise UserError(f"{folder} is not a folder of captioning.export: {why}") from None
    state_dict = {f"decoder.{key}": value for key, value in weights.items()}
    checkpoint = {"captioning": contents, "state_dict": state_dict, "epoch": config.get("epoch")}
    return _validated(folder, checkpoint)


def _validated(path: str | Path, checkpoint: Any) -> dict[str, Any]:
    """Return a checkpoint in today's format. Raises UserError for one that is not sound."""
    match checkpoint:
        case {
            "captioning": {
                "format_version": int(version),
                "vocabulary": list(words),
                "encoder": dict(),
                "config": {"encoder": dict(), "model": dict()},
            },
            "state_dict": dict(weights),
        } if all(isinstance(text, str) for text in (*words, *weights)):
            pass
        case _:
            raise UserError(
                f"{path} is not a checkpoint of captioning.train: it has no format version, "
                "vocabulary, identity of its encoder, config of encoder and model, or weights"
            )
    if not 1 <= version <= FORMAT_VERSION:
        raise UserError(
            f"{path}: its format version is {version}, this release reads 1 to {FORMAT_VERSION}"
        )
    for value in weights.values():
        if type(value) is not Tensor or value.layout is not torch.strided or value.is_quantized:
            raise UserError(f"{path}: its weights are not plain tensors")
    upgrade(checkpoint)
    return checkpoint


def upgrade(checkpoint: dict[str, Any]) -> None:
    """Convert a checkpoint of format version 1 in place; optimizer states are by weights' order."""
    contents = checkpoint["captioning"]
    if contents["format_version"] == FORMAT_VERSION:
        return
    contents["format_version"] = FORMAT_VERSION
    if str(contents["config"]["model"].get("_target_")).startswith("captioning.models."):
        checkpoint["state_dict"] = from_version_1(checkpoint["state_dict"])
    training = contents["config"].get("training")
    if isinstance(training, dict) and "_target_" in training:
        module, _, name = str(training["_target_"]).rpartition(".")
        training["_target_"] = f"{MOVED.get(module, module)}.{name}"
    if isinstance(batch := checkpoint.get("batch"), dict):  # that captioning.replay reads
        names = {"rows": "store_rows", "pictures": "image_index", "words": "target_positions"}
        checkpoint["batch"] = {names.get(key, key): value for key, value in batch.items()}


def load_encoder(
    path: str | Path, checkpoint: Mapping[str, Any], weights: str | None = None
) -> Encoder:
    """Make the encoder that a checkpoint was trained with; its weights may have moved to `weights`.

    Raises UserError if the features would be others.
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


def load_decoder(path: str | Path, checkpoint: Mapping[str, Any], feature_dim: int) -> Decoder:
    """Make a checkpoint's decoder with its weights, in eval mode.

    It is first made without memory, and no number in its config may be larger than its weights'
    largest dimension: a stranger's would fill this machine. Raises UserError if they do not fit.
    """
    contents = checkpoint["captioning"]
    model, vocabulary_size = contents["config"]["model"], len(contents["vocabulary"])
    weights = decoder_weights(checkpoint)
    try:
        largest = max((size for value in weights.values() for size in value.shape), default=0)
        for key, value in model.items():
            if isinstance(value, int) and not 0 <= value <= largest:
                raise ValueError(f"{key}={value} is more than its weights have")
            is_hydras = str(key).startswith("_") and key != "_target_"
            if is_hydras or isinstance(value, dict) or "$" in str(value):
                raise ValueError(f"model.{key} is not a plain value")
        with torch.device("meta"), SkipInit():
            expected = build_decoder(model, vocabulary_size, feature_dim).state_dict()
        if differ := sorted(set(shapes(expected).items()) ^ set(shapes(weights).items())):
            raise ValueError(f"{differ[0][0]} is not of the size that its config says")
        decoder = build_decoder(model, vocabulary_size, feature_dim)
        decoder.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: its model cannot be made: {error}") from None
    return decoder.eval()


def decoder_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the decoder's weights by its own names for them."""
    return {
        key.removeprefix("decoder."): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith("decoder.")
    }


def shapes(state_dict: Mapping[str, Tensor], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its name."""
    return {f"{prefix}{key}": tuple(value.shape) for key, value in state_dict.items()}


def describe_model(checkpoint: Mapping[str, Any], decoder: Decoder) -> dict[str, Any]:
    """Return the entry of a checkpoint in scores.json, without its path."""
    contents = checkpoint["captioning"]
    return {
        "decoder": decoder_sha256(decoder),
        "epoch": checkpoint["epoch"],
        "vocabulary_sha256": Vocabulary(contents["vocabulary"]).sha256,
        "model": contents["config"]["model"],
        "seed": contents["config"]["seed"],
        "encoder": contents["encoder"],
    }


def read_history(checkpoint: Mapping[str, Any]) -> Mapping[int, Mapping[str, float]]:
    """Return the metrics by epoch that RunFolder stored in a checkpoint; {} where it did not."""
    return checkpoint.get("callbacks", {}).get("RunFolder", {}).get("history", {})
