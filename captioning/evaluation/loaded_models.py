"""Load checkpoints as models that caption the images of one feature store, side by side."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from captioning import UserError
from captioning.checkpoint import describe_model, load_decoder, load_encoder
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.features.datamodule import open_store
from captioning.features.store import FeatureStore
from captioning.models.ensemble import Ensemble

MAX_LABEL = 40  # letters


class LoadedModel(NamedTuple):
    """A decoder with the feature store of its encoder; `identity` describes each checkpoint."""

    label: str
    decoder: nn.Module
    vocabulary: Vocabulary
    store: FeatureStore
    identity: list[dict[str, Any]]


def find_checkpoints(patterns: str | Sequence[str]) -> list[str]:
    """Return the checkpoints and exported folders that paths and patterns name.

    The word `default` stays. Raises UserError if one names none.
    """
    checkpoints = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        is_one = pattern == "default" or Path(pattern).exists()
        found = [pattern] if is_one else glob.glob(pattern)
        # Once: outputs/sweeps/latest is a link to a folder beside it.
        found.sort(key=lambda path: os.path.realpath(path) == os.path.abspath(path))
        paths = sorted({os.path.realpath(path): path for path in found}.values())
        if not paths:
            raise UserError(f"ckpt={pattern}: there is no such file; a run leaves best.ckpt")
        checkpoints += paths
    if len(set(map(Path, checkpoints))) < len(checkpoints):
        raise UserError(f"ckpt names a checkpoint twice: {', '.join(checkpoints)}")
    return checkpoints


def checkpoint_labels(paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a label for each checkpoint: the run's name or, of several, what differs in the paths.

    Where that is long or nothing, the name and a number.
    """
    if len(paths) == 1:
        return list(names)
    parts = [re.split("[/,]", path.removesuffix(".ckpt")) for path in paths]
    shared = set.intersection(*map(set, parts))
    labels = ["/".join(part for part in of_path if part not in shared) for of_path in parts]
    if len(set(labels)) < len(labels) or not all(0 < len(label) <= MAX_LABEL for label in labels):
        return [f"{name} {number}" for number, name in enumerate(names, 1)]
    return labels


def load_models(
    paths: Sequence[str],
    checkpoints: Sequence[dict[str, Any]],
    records: list[Record],
    features_root: str,
    weights: str | None = None,
    device: str = "cpu",
    skip_unreadable: bool = False,
) -> tuple[list[Record], list[LoadedModel]]:
    """Return the readable records, and a model for each checkpoint; encode images if need be.

    `weights` is where the encoder's weights are on this machine, if not where they were.
    """
    stores: dict[str, tuple[list[Record], FeatureStore]] = {}  # by encoder
    models = []
    names = [checkpoint["captioning"]["config"]["name"] for checkpoint in checkpoints]
    labels = checkpoint_labels(paths, names)
    for path, label, checkpoint in zip(paths, labels, checkpoints, strict=True):
        contents = checkpoint["captioning"]
        key = json.dumps(contents["encoder"], sort_keys=True)
        if key not in stores:
            encoder = load_encoder(path, checkpoint, weights)
            stores[key] = open_store(records, encoder, features_root, device, skip_unreadable)
        readable, store = stores[key]
        vocabulary = Vocabulary(contents["vocabulary"])
        decoder = load_decoder(path, checkpoint, store.shape[-1])
        identity = {"path": path, **describe_model(checkpoint, decoder)}
        models.append(LoadedModel(label, decoder.to(device), vocabulary, store, [identity]))
    return readable, models


def make_ensemble(models: Sequence[LoadedModel]) -> LoadedModel:
    """Join models. Raises UserError if their vocabularies or their encoders differ."""
    first = models[0]
    if len(models) < 2:
        raise UserError("ensemble=true takes two checkpoints or more: 'ckpt=[a.ckpt,b.ckpt]'")
    for model in models[1:]:
        if model.vocabulary.words != first.vocabulary.words:
            raise UserError(
                f"an ensemble needs one vocabulary, but those of {first.label} and {model.label} "
                "differ; train them on the same captions with the same datamodule.min_count"
            )
        if model.store is not first.store:
            raise UserError(
                f"an ensemble needs one encoder, but those of {first.label} and {model.label} "
                "differ; leave out one of them"
            )
    decoder = Ensemble([model.decoder for model in models]).eval()
    identity = [checkpoint for model in models for checkpoint in model.identity]
    return LoadedModel("ensemble", decoder, first.vocabulary, first.store, identity)
