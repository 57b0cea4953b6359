"""Matplotlib figures for the notebooks: captioned images and attention maps."""

from __future__ import annotations

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

COLUMNS = 4  # of images
LINE_HEIGHT = 0.165  # inches, of text under an image
THUMBNAIL = 480  # pixels, the longest side
WIDTH = 10.0  # inches, of a notebook's page


def images_figure(records: Sequence[Record], texts: Sequence[str]) -> Figure:
    """Show images in rows of four, a text under each."""
    texts = ["\n".join(textwrap.fill(line, 37) for line in text.splitlines()) for text in texts]
    lines = max(text.count("\n") + 1 for text in texts)
    figure, axes = _subplots(-(-len(records) // COLUMNS), COLUMNS, 2.45 + LINE_HEIGHT * lines)
    for axis in axes[len(records) :]:
        axis.remove()
    for axis, record, text in zip(axes, records, texts, strict=False):
        image = load_image(record.path)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
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
    figure, axes = _subplots(-(-(len(maps) + 1) // 5), 5, height=2.2)
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    highest = max(float(weights.max()) for _, weights in maps)
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(image)
    for axis, (word, weights) in zip(axes[1:], maps, strict=False):
        light = Image.fromarray((weights / highest).numpy())
        light = light.resize(image.size, Image.Resampling.BICUBIC)
        light = 0.25 + 0.75 * np.asarray(light).clip(0, 1)[..., None]
        axis.imshow(np.asarray(image) / 255 * light)
        axis.set_title(f"{word}  {100 * float(weights.max()):.0f} %", fontsize=10)
    return figure


def _subplots(rows: int, columns: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)
