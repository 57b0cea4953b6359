"""Matplotlib figures for the notebooks: captioned images and attention maps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from captioning.captioner import Captioner
from captioning.data.image_files import load_image
from captioning.metrics.score_table import TABLE, format_score
from captioning.training.validation import Generated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THUMBNAIL = 480, 480  # pixels at most
DARKEST = 0.5  # of an image's own brightness, where a word has no attention


def images_figure(paths: Sequence[str | Path], texts: Sequence[str]) -> Figure:
    """Show images in rows of four, a text under each."""
    texts = ["\n".join(textwrap.fill(line, 37) for line in text.splitlines()) for text in texts]
    lines = max(text.count("\n") + 1 for text in texts)
    figure, axes = _subplots(len(paths), columns=4, height=2.45 + 0.165 * lines)
    for axis, path, text in zip(axes, paths, texts, strict=True):
        image = load_image(path)
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
    return images_figure([row.record.path for row in rows], texts)


def attention_figure(
    image: Image.Image, maps: Sequence[tuple[str, Float[Tensor, "height width"]]]
) -> Figure:
    """Show each word's attention weights, scaled by its own largest, which is written above."""
    figure, axes = _subplots(len(maps) + 1, columns=5, height=2.2)
    _draw_attention(axes[0], axes[1:], image, maps)
    axes[0].set_title("on the brightest region:", fontsize=10)
    return figure


def captioned_figure(
    captioner: Captioner, images: Collection[Image.Image]
) -> tuple[Figure, list[str]]:
    """Show images, each with its caption and, by a model with attention, the weights of each word.

    Returns the captions, too.
    """
    from matplotlib.figure import Figure

    figure, captions = Figure(figsize=(10, 1.9 * len(images)), layout="constrained"), []
    parts = figure.subfigures(len(images), squeeze=False).flat
    for image, part in zip(images, parts, strict=True):
        features = captioner.features(image)
        caption = captioner.alternatives(features)[0][0]
        has_attention = hasattr(captioner.decoder, "attention")
        maps = captioner.attention(features, caption)[:-1] if has_attention else []
        part.suptitle(caption, fontsize=12, x=0.01, ha="left")
        columns = max(7, math.ceil(len(maps) / 2))
        grid = part.add_gridspec(2, 2 + columns)  # the image is as large as four words
        words = [
            part.add_subplot(grid[at // columns, 2 + at % columns], xticks=[], yticks=[])
            for at in range(len(maps))
        ]
        _draw_attention(part.add_subplot(grid[:, :2], xticks=[], yticks=[]), words, image, maps)
        captions.append(caption)
    return figure, captions


def _draw_attention(
    first: Axes, others: Sequence[Axes], image: Image.Image, maps: Sequence[tuple[str, Tensor]]
) -> None:
    image = image.convert("RGB")
    image.thumbnail(THUMBNAIL)
    first.imshow(image)
    for axis, (word, weights) in zip(others, maps, strict=True):
        light = Image.fromarray(brightness(weights).numpy())
        light = light.resize(image.size, Image.Resampling.BICUBIC)
        axis.imshow(np.asarray(image) / 255 * np.asarray(light).clip(0, 1)[..., None])
        axis.set_title(f"{word}  {100 * float(weights.max()):.0f} %", fontsize=9)


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
