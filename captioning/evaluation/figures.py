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
from captioning.metrics.score_table import TABLE
from captioning.training.validation import Generated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THUMBNAIL = 480, 480  # pixels at most


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
    """Show images with the generated caption, its scores, and one reference."""
    texts = []
    for record, caption, scores in rows:
        named = ", ".join(f"{TABLE[key].label} {scores[key]:.2f}" for key in keys)
        texts.append(f"“{caption}”\n{named}\nhuman: {record.captions[0]}")
    return images_figure([row.record for row in rows], texts)


def attention_figure(
    image: Image.Image, maps: Sequence[tuple[str, Float[Tensor, "height width"]]]
) -> Figure:
    """Show the attention weights of each word: bright regions have high weights.

    One scale for all words: an evenly dim map is attention spread over the whole image.
    """
    figure, axes = _subplots(len(maps) + 1, columns=5, height=2.2)
    image = image.convert("RGB")
    image.thumbnail(THUMBNAIL)
    highest = max(float(weights.max()) for _, weights in maps)
    axes[0].imshow(image)
    for axis, (word, weights) in zip(axes[1:], maps, strict=True):
        light = Image.fromarray((weights / highest).numpy())
        light = light.resize(image.size, Image.Resampling.BICUBIC)
        light = 0.25 + 0.75 * np.asarray(light).clip(0, 1)[..., None]
        axis.imshow(np.asarray(image) / 255 * light)
        axis.set_title(f"{word}  {100 * float(weights.max()):.0f} %", fontsize=10)
    return figure


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
