"""Fit the confidence of a captioner on one half of a split, and measure it on the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from captioning import UserError
from captioning.captioner import confidence_path
from captioning.data.records import Record
from captioning.evaluation.loaded_models import LoadedModel, find_checkpoints
from captioning.evaluation.scoring import Scorer
from captioning.metrics.confidence import Confidence, caption_log_probs, reliability

FEWEST = 100  # images
BATCH = 250


def check_records(records: Sequence[Record], split: str, ckpt: str | Sequence[str]) -> None:
    """Raise UserError for a split that confidence cannot be fitted to, or a folder that is closed.

    The test split is scored once, at the end, and nothing is fitted to it.
    """
    if split != "val":
        raise UserError("confidence=true is fitted to dev; type split=dev")
    for checkpoint in find_checkpoints(ckpt):
        folder = confidence_path(checkpoint).parent
        if not os.access(folder, os.W_OK):
            raise UserError(f"confidence=true writes into {folder}, which cannot be written to")
    if len(records) < FEWEST or min(len(record.captions) for record in records) < 2:
        raise UserError(
            f"confidence=true needs {FEWEST} images of {split}, each with two references or more; "
            "leave it out"
        )


def fit_confidence(
    scorer: Scorer, model: LoadedModel, training: Sequence[Record], captions: list[str]
) -> tuple[Float[np.ndarray, " image"], dict[str, Any]]:
    """Write the confidence beside a model's checkpoint; return it of each caption, and a report.

    It is fitted to every second record, from the first on; `ece` and `bins` in the report are of
    the others, in shares from 0 to 1.
    """
    closeness = scorer.closeness(captions)
    features = model.store.get_features(scorer.records)
    device = next(model.decoder.parameters()).device
    log_probs = torch.zeros(len(captions))
    for start in range(0, len(captions), BATCH):
        batch = slice(start, start + BATCH)
        log_probs[batch] = caption_log_probs(
            model.decoder, model.vocabulary, features[batch].to(device), captions[batch]
        )
    (checkpoint,) = model.identity
    confidence = Confidence.fit(training, model.store, checkpoint["decoder"])
    half, other = slice(None, None, 2), slice(1, None, 2)
    confidence.calibrate(
        log_probs[half], features[half], captions[half], torch.from_numpy(closeness[half])
    )
    confidence.save(confidence_path(checkpoint["path"]))
    values = confidence(log_probs, features, captions).numpy()
    error, bins = reliability(values[other], closeness[other])
    images = {"fitted_to": len(values[half]), "measured_on": len(values[other])}
    return values, {"label": model.label, "ece": error, "bins": bins, **images}
