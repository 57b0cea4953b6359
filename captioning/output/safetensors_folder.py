"""Write a captioner as a folder that holds all it needs, none of it a pickle.

`captioning.checkpoint.read_pretrained` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from captioning.checkpoint import decoder_weights
from captioning.features.encoder import build_classifier, cut_before_pooling
from captioning.features.weights import find_weights, load_weights


def write_config(
    folder: Path,
    checkpoint: Mapping[str, Any],
    feature_dim: int,
    encoder_weights: str | None = None,
) -> None:
    """Write config.json: all that captioning needs of a checkpoint but the weights.

    `encoder_weights` is the file of the encoder's weights in the folder, if there is one.
    """
    contents = checkpoint["captioning"]
    config = {
        "format_version": contents["format_version"],
        "model": contents["config"]["model"],
        "feature_dim": feature_dim,
        "encoder": contents["encoder"],
        "encoder_weights": encoder_weights,
        "vocabulary": contents["vocabulary"],
    }
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def write_pretrained(
    folder: Path, checkpoint: Mapping[str, Any], feature_dim: int, weights: str | None
) -> None:
    """Write config.json, the decoder's weights and, under their own name, the encoder's.

    `weights` is as `Encoder` takes it; an encoder of random weights has no file.
    """
    encoder = checkpoint["captioning"]["encoder"]
    source, _ = find_weights(encoder["name"], weights)
    encoder_weights = f"{source.stem}.safetensors" if source else None
    if source:
        body = cut_before_pooling(build_classifier(encoder["name"], encoder["image_size"]))
        load_weights(body, source)
        _save(body.state_dict(), folder / encoder_weights)
    _save(decoder_weights(checkpoint), folder / "model.safetensors")
    write_config(folder, checkpoint, feature_dim, encoder_weights)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Weights that a model shares are stored twice: safetensors has no notion of sharing.
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, path)
