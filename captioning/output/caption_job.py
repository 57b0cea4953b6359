"""Caption many images into a table or into texts beside them; memory does not grow with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from captioning import UserError
from captioning.captioner import Captioner
from captioning.config.cli import check_device
from captioning.data.progress import progress_bar
from captioning.data.records import Record
from captioning.features.hashes import hash_images
from captioning.features.images import read_ahead
from captioning.models.old_names import decoder_sha256
from captioning.output.caption_tables import CaptionTable, Row, Sidecars

BATCH = 32


def load_captioner(ckpt: str, weights: str = "", device: str = "cpu") -> Captioner:
    """Load a checkpoint, an exported folder or, for the word `default`, the packaged captioner.

    `weights` are the encoder's, if not where they were in training. Raises UserError for a device
    that is not there, and for what is neither.
    """
    check_device(device)
    if weights and (ckpt == "default" or Path(ckpt).is_dir()):
        raise UserError(f"ckpt={ckpt} is a folder with weights of its own; leave out weights=")
    return Captioner.from_checkpoint(ckpt, weights or None, device)


def describe_job(captioner: Captioner, search: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the captions, wherever the checkpoint lies; plain types."""
    confidence = captioner.confidence_model
    return {
        "decoder": decoder_sha256(captioner.decoder),
        "encoder": captioner.encoder.identity,
        "vocabulary": captioner.vocabulary.sha256,
        "scores": {
            name: confidence.sha256 if name == "confidence" else ""
            for name in score_columns(captioner)
        },
        "search": search,
    }


def score_columns(captioner: Captioner) -> list[str]:
    """Return the names of the scores that each caption has."""
    has = {"confidence": captioner.confidence_model, "image_fit": captioner.fit_model}
    return [name for name, model in has.items() if model]


def hash_training(records: Sequence[Record]) -> str:
    """Return a hash of the training images and captions that a rerank was fitted to."""
    hashes = hash_images([record.path for record in records], "outputs/features")
    contents = [
        (record.image_id, record.captions, image_hash.hex())
        for record, image_hash in zip(records, hashes, strict=True)
    ]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def caption_images(
    captioner: Captioner,
    paths: Sequence[str],
    failed: list[str],
    min_confidence: float | None = None,
) -> Iterator[list[Row]]:
    """Yield rows batch by batch; messages about images that cannot be read go to `failed`.

    A caption of less confidence than `min_confidence` is empty. Many images on a CPU go through
    ONNX Runtime.
    """
    captioner.encoder.prepare_for(len(paths))
    batches = read_ahead(paths, captioner.encoder.preprocess, BATCH)
    for start, images in zip(range(0, len(paths), BATCH), batches, strict=True):
        failed += [image for image in images if isinstance(image, str)]
        readable = [index for index, image in enumerate(images) if not isinstance(image, str)]
        if readable:
            batch = torch.stack([images[index] for index in readable])
            rows = []
            for index, (caption, scores) in zip(
                readable, captioner.scored_captions_of(batch), strict=True
            ):
                if min_confidence is not None and not scores["confidence"] >= min_confidence:
                    caption = ""
                rows.append(Row(paths[start + index], caption, scores))
            yield rows


def write_captions(
    captioner: Captioner,
    images: Sequence[str],
    output: CaptionTable | Sidecars,
    failed: list[str],
    min_confidence: float | None = None,
) -> None:
    """Caption the images that `output` lacks, with a progress bar, and print their numbers."""
    missing = output.missing(images)
    existing = len(images) - len(missing) - len(output.clashes)
    made, unsure = 0, 0
    with progress_bar(total=len(images), initial=existing, unit="img", desc="captioning") as bar:
        for rows in caption_images(captioner, missing, failed, min_confidence):
            output.write(rows)
            made += len(rows)
            unsure += sum(not row.caption for row in rows) if min_confidence is not None else 0
            bar.update(existing + made + len(failed) - bar.n)
    failed += output.clashes
    counts = [f"captions made: {made - unsure:,}"]
    counts += [f"left out by min_confidence: {unsure:,}"] if unsure else []
    counts += [f"there already: {existing:,}"] if existing else []
    counts += [f"images without: {len(failed):,}"] if failed else []
    print(f"{output.name}: {', '.join(counts)}")
