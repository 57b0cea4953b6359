"""Matplotlib figures for the notebooks: captioned images and attention maps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from captioning.data.image_files import load_image
from captioning.data.records import Record
from captioning.metrics.score_table import TABLE, format_score
from captioning.training.validation import Generated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THUMBNAIL = 480, 480  # pixels at most
DARKEST = 0.5  # of an image's own brightness, where a word has no attention


def images_figure(records: Sequence[Record], texts: Sequence[str]) -> Figure:
    """Show images in rows of four, a text under each."""
    texts = ["\n".join(textwrap.fill(line, 37) for line in text.splitlines()) for text in texts]
    lines = max(text.count("\n") + 1 for text in texts)
    figure, axes = _subplots(len(records), columns=4, height=2.45 + 0.165 * lines)
    for axis, record, text in zip(axes, records, texts, strict=True):
        image = load_image(record.path)
        image.thumbnail(THUMBNAIL)
        axis.imshow(image)
        axis.set_xlabel(text, fontsize=8.5)
    return figure


def captions_figure(rows: Sequence[Generated], keys: Sequence[str] = ("cider",)) -> Figure:
    """Show images with the generated caption, its scores x100, and one reference."""
    texts = []
    for record, caption, scores in rows:
        named = ", ".join(f"{TABLE[key].label} {format_score(key, scores[key])}" for key in keys)
        texts.append(f"“{caption}”\n{named}\nhuman: {record.captions[0]}")
    return images_figure([row.record for row in rows], texts)


def attention_figure(
    image: Image.Image, maps: Sequence[tuple[str, Float[Tensor, "height width"]]]
) -> Figure:
    """Show each word's attention weights, scaled by its own largest, which is written above."""
    figure, axes = _subplots(len(maps) + 1, columns=5, height=2.2)
    image = image.convert("RGB")
    image.thumbnail(THUMBNAIL)
    axes[0].imshow(image)
    axes[0].set_title("on the brightest region:", fontsize=10)
    for axis, (word, weights) in zip(axes[1:], maps, strict=True):
        light = Image.fromarray(brightness(weights).numpy())
        light = light.resize(image.size, Image.Resampling.BICUBIC)
        axis.imshow(np.asarray(image) / 255 * np.asarray(light).clip(0, 1)[..., None])
        axis.set_title(f"{word}  {100 * float(weights.max()):.0f} %", fontsize=10)
    return figure


def brightness(weights: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Return how bright each region is shown, from DARKEST to 1 for the largest weight."""
    # The root, as on photographs most weights are a small part of the largest.
    return DARKEST + (1 - DARKEST) * (weights / weights.max()).sqrt()


def _subplots(count: int, columns: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure of `count` images without axes, in rows of `height` inches."""
    from matplotlib.figure import Figure

    rows = math.ceil(count / columns)
    figure = Figure(figsize=(10, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes[:count]
