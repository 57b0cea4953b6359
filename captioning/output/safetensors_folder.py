"""Write a captioner as a folder that holds all it needs, none of it a pickle.

Only weights from a package of the package index are named instead. `captioning.checkpoint` reads
the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.checkpoint import decoder_weights
from captioning.features.encoder import build_classifier, cut_before_pooling
from captioning.features.weights import find_weights, load_weights
from captioning.models.stored_weights import quantize, write_safetensors


def write_config(
    folder: Path,
    checkpoint: Mapping[str, Any],
    feature_dim: int,
    encoder_weights: str | None = None,
    sha256: str | None = None,
) -> None:
    """Write config.json: all that captioning needs of a checkpoint but the weights.

    `encoder_weights` is the file of the encoder's weights in the folder, or "package"; None for
    random ones. `sha256` is that of model.safetensors.
    """
    contents = checkpoint["captioning"]
    config = {
        "format_version": contents["format_version"],
        "name": contents["config"]["name"],
        "seed": contents["config"]["seed"],
        "epoch": checkpoint["epoch"],
        "model": contents["config"]["model"],
        "feature_dim": feature_dim,
        "encoder": contents["encoder"],
        "encoder_weights": encoder_weights,
        "sha256": sha256,
        "vocabulary": contents["vocabulary"],
    }
    text = json.dumps(config, indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def write_pretrained(
    folder: Path,
    checkpoint: Mapping[str, Any],
    feature_dim: int,
    weights: str | None,
    dtype: str = "float32",
) -> None:
    """Write config.json, the decoder's weights and, under their own name, the encoder's.

    `weights` is as `Encoder` takes it. `dtype` is that of the decoder's matrices: float32, or int8,
    a quarter of the size.
    """
    encoder_weights = weights if weights == "package" else None
    encoder = checkpoint["captioning"]["encoder"]
    source, _ = find_weights(encoder["name"], weights)
    if source and not encoder_weights:
        encoder_weights = f"{source.stem}.safetensors"
        body = cut_before_pooling(build_classifier(encoder["name"], encoder["image_size"]))
        load_weights(body, source)
        write_safetensors(folder / encoder_weights, body.state_dict())
    decoder = decoder_weights(checkpoint)
    weights_file = folder / "model.safetensors"
    write_safetensors(weights_file, quantize(decoder) if dtype == "int8" else decoder)
    sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    write_config(folder, checkpoint, feature_dim, encoder_weights, sha256)
