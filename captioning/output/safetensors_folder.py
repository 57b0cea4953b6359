"""The exported captioner, as a folder that holds all it takes, none of it a pickle.

A checkpoint enters; config.json and weights as safetensors leave, and `read_pretrained` makes of
them what a checkpoint holds. Such a folder may be a stranger's: nothing in it is run, and what does
not add up is refused before memory is asked for. Next: captioner.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from captioning import UserError
from captioning.config.build import check_weights
from captioning.features.encoder import build_classifier, cut_before_pooling
from captioning.features.weights import find_weights, load_weights
from captioning.training.module import FORMAT_VERSION

WEIGHTS = "model.safetensors"
LARGEST_CONFIG = 16 << 20  # bytes; a vocabulary of a million words
LARGEST_IMAGE = 1024  # pixels a side; torchvision's largest is 600
KINDS: dict[str, type | tuple] = {
    "format_version": int,
    "model": dict,
    "feature_dim": int,
    "encoder": dict,
    "encoder_weights": (str, type(None)),
    "vocabulary": list,
}
ENCODER_KINDS: dict[str, type | tuple] = {
    "name": str,
    "weights": str,
    "features": str,
    "crop": bool,
    "image_size": int,
    "resize": (int, type(None)),
    "mean": list,
    "std": list,
    "interpolation": str,
}


def config_of(checkpoint: Mapping[str, Any], feature_dim: int) -> dict[str, Any]:
    """Return all that captioning needs of a checkpoint but the weights, in plain types."""
    contents = checkpoint["captioning"]
    return {
        "format_version": contents["format_version"],
        "model": contents["config"]["model"],
        "feature_dim": feature_dim,
        "encoder": contents["encoder"],
        "encoder_weights": None,
        "vocabulary": contents["vocabulary"],
    }


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json."""
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def write_pretrained(
    folder: Path, checkpoint: Mapping[str, Any], feature_dim: int, weights: str | None
) -> None:
    """Write config.json, the decoder's weights and, under their own name, the encoder's.

    `weights` is as `Encoder` takes it; an encoder of random numbers has no file.
    """
    config = config_of(checkpoint, feature_dim)
    name, image_size = config["encoder"]["name"], config["encoder"]["image_size"]
    file, _ = find_weights(name, weights)
    if file:
        body = cut_before_pooling(build_classifier(name, image_size))
        load_weights(body, file)
        config["encoder_weights"] = f"{file.stem}.safetensors"
        _save(body.state_dict(), folder / config["encoder_weights"])
    decoder = _decoder_weights(checkpoint["state_dict"])
    _save(decoder, folder / WEIGHTS)
    write_config(folder, config)


def read_pretrained(folder: str | Path) -> dict[str, Any]:
    """Return what a checkpoint would hold of an exported folder.

    Raises UserError where a file is missing, too large, damaged, or not what `write_pretrained`
    writes.
    """
    folder = Path(folder)
    config = _read_config(folder)
    encoder, vocabulary = config["encoder"], config["vocabulary"]
    file = config["encoder_weights"]
    if file and (Path(file).name != file or not (folder / file).is_file()):
        raise UserError(f"{folder} lacks the encoder's weights, {file}; get the whole folder")
    options = {key: encoder[key] for key in ("name", "features", "image_size", "crop")}
    options["weights"] = str(folder / file) if file else None
    return {
        "captioning": {
            "format_version": config["format_version"],
            "vocabulary": vocabulary,
            "encoder": encoder,
            "config": {"model": config["model"], "encoder": options},
        },
        "state_dict": _read_weights(folder, config),
    }


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} is not a folder of captioning.export format=safetensors: it lacks "
            f"{'config.json' if not path.is_file() else WEIGHTS}"
        )
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"it is larger than {LARGEST_CONFIG >> 20} MB")
        config = json.loads(path.read_text(encoding="utf-8"))
        _check(config, KINDS, "it")
        _check(config["encoder"], ENCODER_KINDS, "encoder")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a config of captioning.export: {error}") from None
    encoder = config["encoder"]
    sizes = (encoder["image_size"], encoder["resize"] or 1)
    if config["format_version"] != FORMAT_VERSION:
        why = f"its format version is {config['format_version']}, this release reads "
        raise UserError(f"{path}: {why}{FORMAT_VERSION}")
    if not all(0 < size <= LARGEST_IMAGE for size in sizes):
        raise UserError(f"{path}: encoder.image_size is {max(sizes)}, not 1 to {LARGEST_IMAGE}")
    return config


def _check(config: object, kinds: Mapping[str, type | tuple], where: str) -> None:
    """Raise ValueError unless `config` has just those keys, with values of those kinds."""
    if not isinstance(config, dict) or set(config) != set(kinds):
        raise ValueError(f"{where} does not hold just {', '.join(kinds)}")
    for key, kind in kinds.items():
        value = config[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{key} is of the wrong type")
    for key, value in config.get("model", {}).items():
        plain = isinstance(value, int | float) or (isinstance(value, str) and "$" not in value)
        if not plain or (key.startswith("_") and key != "_target_"):
            raise ValueError(f"model.{key} is not a plain value")
    if not all(isinstance(word, str) for word in config.get("vocabulary", [])):
        raise ValueError("vocabulary holds more than words")


def _read_weights(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the decoder's weights, if they are those of the model that the config names."""
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        words, feature_dim = len(config["vocabulary"]), config["feature_dim"]
        check_weights(config["model"], words, feature_dim, shapes)
        return {f"decoder.{key}": value for key, value in load_file(path).items()}
    except Exception as error:  # a file and a model can be wrong in ways without a common class
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{path} does not fit its config.json: {why}") from None


def _decoder_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix("decoder."): value
        for key, value in state_dict.items()
        if key.startswith("decoder.")
    }


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Weights that a model shares are stored twice: safetensors has no notion of sharing.
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, path)
