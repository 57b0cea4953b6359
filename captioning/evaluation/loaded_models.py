"""Checkpoints enter; captioners that can be scored side by side leave. Next: scoring.py."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from captioning import UserError
from captioning.captioner import load_decoder, load_encoder
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.features.datamodule import open_store
from captioning.features.store import FeatureStore
from captioning.features.weights import weights_sha256
from captioning.models.ensemble import Ensemble

LONGEST = 40  # letters of a label


class LoadedModel(NamedTuple):
    """A captioner of pictures whose features are stored; `identity` says what it is."""

    label: str
    decoder: nn.Module
    vocabulary: Vocabulary
    store: FeatureStore
    identity: list[dict[str, Any]]  # a checkpoint each


def find_checkpoints(patterns: str | Sequence[str]) -> list[str]:
    """Return the files that paths and patterns name. Raises UserError where one names none."""
    found = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        paths = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))
        if not paths:
            raise UserError(f"ckpt={pattern}: there is no such file; a run leaves best.ckpt")
        found += paths
    if len(set(map(Path, found))) < len(found):
        raise UserError(f"ckpt names a checkpoint twice: {', '.join(found)}")
    return found


def labels(paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return short names: of one run its own; of several what tells their paths apart.

    Where that is long, it is the run's name and its number.
    """
    if len(paths) == 1:
        return list(names)
    parts = [re.split("[/,]", path.removesuffix(".ckpt")) for path in paths]
    shared = set.intersection(*map(set, parts))
    own = ["/".join(part for part in one if part not in shared) for one in parts]
    if len(set(own)) < len(own) or not all(0 < len(one) <= LONGEST for one in own):
        return [f"{name} {number}" for number, name in enumerate(names, 1)]
    return own


def load_models(
    paths: Sequence[str],
    checkpoints: Sequence[dict[str, Any]],
    records: list[Record],
    features_root: str,
    weights: str | None = None,
    device: str = "cpu",
    skip_unreadable: bool = False,
) -> tuple[list[Record], list[LoadedModel]]:
    """Return the readable records, and an entrant a checkpoint; pictures are encoded if need be.

    `weights` is where the encoder's weights are on this machine, if not where they were.
    """
    opened: dict[str, tuple[list[Record], FeatureStore]] = {}
    entrants = []
    names = [checkpoint["captioning"]["config"]["name"] for checkpoint in checkpoints]
    for path, label, checkpoint in zip(paths, labels(paths, names), checkpoints, strict=True):
        contents = checkpoint["captioning"]
        key = json.dumps(contents["encoder"], sort_keys=True)
        if key not in opened:
            encoder = load_encoder(path, checkpoint, weights)
            opened[key] = open_store(records, encoder, features_root, device, skip_unreadable)
        store = opened[key][1]
        vocabulary = Vocabulary(contents["vocabulary"])
        decoder = load_decoder(path, checkpoint, store.shape[-1])
        identity = {
            "path": path,
            "decoder": weights_sha256(decoder),
            "epoch": checkpoint["epoch"],
            "vocabulary_sha256": vocabulary.sha256,
            "model": contents["config"]["model"],
            "seed": contents["config"]["seed"],
            "encoder": contents["encoder"],
        }
        entrants.append(LoadedModel(label, decoder.to(device), vocabulary, store, [identity]))
    return next(iter(opened.values()))[0], entrants


def ensemble(entrants: Sequence[LoadedModel]) -> LoadedModel:
    """Return all as one. Raises UserError where they speak other words or see other features."""
    first = entrants[0]
    if len(entrants) < 2:
        raise UserError("ensemble=true takes two checkpoints or more: 'ckpt=[a.ckpt,b.ckpt]'")
    for one in entrants[1:]:
        if one.vocabulary.words != first.vocabulary.words:
            raise UserError(
                f"an ensemble speaks one vocabulary, but {first.label} has "
                f"{len(first.vocabulary)} words and {one.label} {len(one.vocabulary)} or others; "
                "train them on the same captions with the same datamodule.min_count"
            )
        if one.store is not first.store:
            raise UserError(
                f"an ensemble sees with one encoder, but {first.label} was trained on features of "
                f"{first.store.encoder['name']} and {one.label} on others; leave one of them out"
            )
    decoder = Ensemble([one.decoder for one in entrants]).eval()
    identity = [part for one in entrants for part in one.identity]
    return LoadedModel("ensemble", decoder, first.vocabulary, first.store, identity)
