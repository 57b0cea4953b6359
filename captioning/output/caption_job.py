"""A job: many pictures through a captioner, into a table or beside the pictures.

A captioner and paths enter, rows leave as they are made; memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from captioning.captioner import Captioner
from captioning.features.images import read_ahead
from captioning.features.weights import weights_sha256
from captioning.output.caption_tables import Row, Sidecars, Table

BATCH = 32


def identity(captioner: Captioner, search: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the captions, wherever the checkpoint lies; plain types."""
    return {
        "decoder": weights_sha256(captioner.decoder),
        "encoder": captioner.encoder.identity,
        "vocabulary": captioner.vocabulary.sha256,
        "search": search,
    }


def captioned(
    captioner: Captioner,
    paths: Sequence[str],
    failed: list[str],
    seen: Callable[[int], Any] = lambda pictures: None,
) -> Iterator[list[Row]]:
    """Return rows batch by batch, as they are made; what cannot be read goes to `failed`.

    `seen` is told how many pictures have been through. Many pictures on a CPU go by ONNX Runtime.
    """
    captioner.encoder.prepare_for(len(paths))
    batches = read_ahead(paths, captioner.encoder.preprocess, BATCH)
    for start, images in zip(range(0, len(paths), BATCH), batches, strict=True):
        failed += [image for image in images if isinstance(image, str)]
        good = [at for at, image in enumerate(images) if not isinstance(image, str)]
        if good:
            texts = captioner.captions_of(torch.stack([images[at] for at in good]))
            yield [(paths[start + at], text) for at, text in zip(good, texts, strict=True)]
        seen(len(images))


def write(
    captioner: Captioner, pictures: Sequence[str], output: Table | Sidecars, failed: list[str]
) -> None:
    """Caption what `output` lacks, with a progress bar, and say what came of it."""
    todo = output.todo(pictures)
    there = len(pictures) - len(todo) - len(output.clashes)
    made = 0
    with tqdm(total=len(pictures), initial=there, unit="img", desc="captioning") as bar:
        for rows in captioned(captioner, todo, failed, bar.update):
            output.write(rows)
            made += len(rows)
    failed += output.clashes
    counts = [f"captions made: {made:,}"]
    counts += [f"there already: {there:,}"] if there else []
    counts += [f"pictures without: {len(failed):,}"] if failed else []
    print(f"{output.name}: {', '.join(counts)}")
    if there and isinstance(output, Sidecars):
        print("texts that were there are as they were, whoever wrote them (overwrite=true: anew)")
