"""Render the captions of images as HTML for the demo page: one in detail, several as a table."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from captioning import UserError
from captioning.captioner import Captioner
from captioning.data.image_files import load_image
from captioning.evaluation.figures import brightness
from captioning.search.beam import beam_search, greedy_search
from captioning.search.sample import sample
from captioning.web.pages import ENVIRONMENT, data_uri

MAX_IMAGES = 500  # at once
SAMPLES = 5
ALTERNATIVES = 10  # captions of a model
SIDE, THUMBNAIL = 960, 120  # pixels, the longest side
CHUNK = 16  # images captioned between two states of the table

FRAGMENTS = ENVIRONMENT.get_template("demo.html").module


def render_answer(
    captioners: Mapping[str, Captioner],
    paths: Sequence[str],
    search: str,
    width: int,
    temperature: float,
    labels: Sequence[str],
    use_rerank: bool,
) -> Iterator[str]:
    """Yield the HTML of the images' captions by a visitor's settings; of several, row by row.

    `search` is greedy, beam or sampling.
    """
    seed = random.getrandbits(31)
    searches = {
        "greedy": greedy_search,
        "beam": partial(beam_search, width=int(width)),
        "sampling": partial(sample, samples=SAMPLES, temperature=temperature, seed=seed),
    }
    # Copies around the same networks: visitors search in different ways at once.
    chosen = {label: copy(captioners[label]) for label in captioners if label in labels}
    for captioner in chosen.values():
        captioner.search = searches[search]
        if not use_rerank:
            captioner.rerank = None
    unit = "log-probability" if search == "sampling" else "log-probability per word"
    if use_rerank:
        unit = "score by training images"
    try:
        if not paths:
            yield FRAGMENTS.hint()
        elif not chosen:
            yield FRAGMENTS.problem("Choose a model.")
        elif len(paths) > MAX_IMAGES:
            yield FRAGMENTS.problem(
                f"{len(paths)} images are more than the {MAX_IMAGES} that this page takes at once; "
                "for a large folder type python -m captioning.caption"
            )
        elif len(paths) == 1:
            yield render_image(paths[0], chosen, unit)
        else:
            yield from render_table(paths, chosen)
    except UserError as error:
        yield FRAGMENTS.problem(str(error))


def render_image(path: str, captioners: Mapping[str, Captioner], unit: str) -> str:
    """Return the HTML of one image and each captioner's captions, with the attention of words."""
    image = open_image(path)
    models = {label: _model_context(captioner, image) for label, captioner in captioners.items()}
    ratio = image.width / image.height
    return FRAGMENTS.single(Path(path).name, data_uri(image, SIDE), ratio, models, unit)


def _model_context(captioner: Captioner, image: Image.Image) -> dict[str, object]:
    features = captioner.features(image)
    has_attention = hasattr(captioner.decoder, "attention")
    alternatives = captioner.alternatives(features)[:ALTERNATIVES]
    confidences: list[float | None] = [None] * len(alternatives)
    if captioner.confidence_model and alternatives:
        confidences = captioner.confidence(features, [text for text, _ in alternatives])
    captions = []
    for (text, score), confidence in zip(alternatives, confidences, strict=True):
        attention = captioner.attention(features, text) if has_attention else []
        captions.append((attention_parts(text, attention), score, confidence))
    # The encoder sees the whole image, or a square of the middle; cqmin is 1 % of the shorter side.
    preprocess = captioner.encoder.preprocess
    crop = "100%"
    if preprocess.resize:
        crop = f"{100 * preprocess.image_size / preprocess.resize:.2f}cqmin"
    return {"crop": crop, "has_attention": has_attention, "captions": captions}


def attention_parts(
    text: str, attention: Sequence[tuple[str, Float[Tensor, "height width"]]]
) -> list[tuple[str, int, str, float]]:
    """Split a caption into words with attention and the text between them.

    A part is its text, the side of its grid, the brightness of its regions in hexadecimal, two
    digits each, and the largest weight, 0 to 1; the text between words has 0, "" and 0.
    """
    parts, end = [], 0
    for word, weights in attention:
        start = text.find(word, end)
        if start < 0:  # <eos>, and brackets, which the tokenizer renames
            continue
        levels = (255 * brightness(weights)).round().to(torch.uint8).flatten().tolist()
        parts.append((text[end:start], 0, "", 0.0))
        parts.append((word, len(weights), bytes(levels).hex(), float(weights.max())))
        end = start + len(word)
    return [*parts, (text[end:], 0, "", 0.0)]


def render_table(paths: Sequence[str], captioners: Mapping[str, Captioner]) -> Iterator[str]:
    """Caption several images; yield the table so far, at last with its CSV."""
    columns = ["image", *(captioners if len(captioners) > 1 else ["caption"])]
    (first, *others) = captioners.values()
    has_confidence = first.confidence_model is not None and not others
    columns += ["confidence"] * has_confidence
    thumbnails: list[str] = []
    rows: list[tuple[str, ...]] = []
    problems: list[str] = []
    for start in range(0, len(paths), CHUNK):
        names, inputs = [], []
        for path in paths[start : start + CHUNK]:
            try:
                image = open_image(path)
            except UserError as error:
                problems.append(str(error))
                continue
            names.append(Path(path).name)
            thumbnails.append(data_uri(image, THUMBNAIL))
            inputs.append([each.encoder.preprocess(image) for each in captioners.values()])
        if names:
            batches = [torch.stack(batch) for batch in zip(*inputs, strict=True)]
            if has_confidence:
                scored = zip(names, first.scored_captions_of(batches[0]), strict=True)
                rows += [(name, text, f"{of['confidence']:.2f}") for name, (text, of) in scored]
            else:
                captions = [
                    captioner.captions_of(batch)
                    for captioner, batch in zip(captioners.values(), batches, strict=True)
                ]
                rows += zip(names, *captions, strict=True)
        done = min(start + CHUNK, len(paths))
        saved = ""
        if done == len(paths):
            csv = pd.DataFrame(rows, columns=columns).to_csv(index=False)
            saved = base64.b64encode(csv.encode()).decode()
        shown = list(zip(thumbnails, rows, strict=True))
        yield FRAGMENTS.table(columns, shown, problems, done, len(paths), saved)


def open_image(path: str) -> Image.Image:
    """Read a visitor's image; the UserError names the file without the server's folder."""
    try:
        return load_image(path)
    except UserError as error:
        raise UserError(str(error).replace(path, Path(path).name)) from None
