"""Figures for notebooks: records, captions and attention enter; matplotlib Figures leave."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from captioning.data.image_files import load_image
from captioning.data.records import SPLITS, Record
from captioning.data.tokenizer import tokenize
from captioning.evaluation.breakdowns import Coverage, caption_lengths, word_counts
from captioning.metrics.score_table import TABLE
from captioning.training.validation import Generated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
LINE = 0.165  # inches, of text under a picture
THUMBNAIL = 480  # pixels, the longest side
THRESHOLDS = (1, 2, 3, 4, 5, 7, 10, 15, 20)  # of min_count
WIDTH = 10.0  # inches, of a notebook's page


def pictures_figure(records: Sequence[Record], texts: Sequence[str]) -> Figure:
    """Show pictures in rows of four, a text under each."""
    texts = [_wrapped(text) for text in texts]
    lines = max(text.count("\n") + 1 for text in texts)
    figure, axes = _axes(-(-len(records) // COLUMNS), COLUMNS, height=2.45 + LINE * lines)
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
    """Show pictures with what was said of each, its scores, and one reference."""
    texts = []
    for record, caption, scores in rows:
        named = ", ".join(f"{TABLE[key].label} {scores[key]:.2f}" for key in keys)
        texts.append(f"“{caption}”\n{named}\npeople: {record.captions[0]}")
    return pictures_figure([one.record for one in rows], texts)


def lengths_figure(records: Sequence[Record]) -> Figure:
    """Draw how long captions are, as a share of each split's."""
    figure, (axis,) = _axes(1, 1, height=3.0)
    for split in SPLITS:
        texts = [text for one in records if one.split == split for text in one.captions]
        if texts:
            shares = np.bincount(caption_lengths(texts)) / len(texts)
            label = f"{split}, {len(texts):,} captions"
            axis.plot(100 * shares, marker="o", markersize=3, label=label)
    axis.legend(frameon=False)
    _name(axis, "% of the captions", "words in a caption")
    return figure


def vocabulary_figure(records: Sequence[Record], min_count: int) -> Figure:
    """Draw how the vocabulary grows with the training captions, and what `min_count` leaves of it.

    The dotted line is the `min_count` in use; validation words are counted each time they occur.
    """
    splits = {
        split: [text for one in records if one.split == split for text in one.captions]
        for split in SPLITS
    }
    counts, wanted = word_counts(splits["train"]), word_counts(splits["val"])
    figure, (growth, size, known) = _axes(1, 3, height=3.0)
    growth.plot(vocabulary_growth(splits["train"]))
    _name(growth, "different words", "training captions read")
    kept = [{word for word in counts if counts[word] >= least} for least in THRESHOLDS]
    size.plot(THRESHOLDS, [len(words) for words in kept], marker="o", markersize=3)
    _name(size, "words in the vocabulary", "min_count")
    shares = [100 * sum(wanted[word] for word in words) / wanted.total() for words in kept]
    known.plot(THRESHOLDS, shares, marker="o", markersize=3)
    _name(known, "% of validation words known", "min_count")
    for axis in (size, known):
        axis.axvline(min_count, color="0.6", linestyle=":")
    size.set_ylim(bottom=0)
    return figure


def vocabulary_growth(captions: Sequence[str]) -> list[int]:
    """Return how many different words the first caption has, the first two, and so on."""
    seen: Counter[str] = Counter()
    return list(accumulate(_new(seen, caption) for caption in captions))


def attention_figure(
    picture: Image.Image, looks: Sequence[tuple[str, Float[Tensor, "height width"]]]
) -> Figure:
    """Show where the model looks for each word: bright there, dark elsewhere.

    One scale for all words: what lights up little is looked at everywhere a little.
    """
    figure, axes = _axes(-(-(len(looks) + 1) // 5), 5, height=2.2)
    picture = picture.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    brightest = max(float(weights.max()) for _, weights in looks)
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(picture)
    for axis, (word, weights) in zip(axes[1:], looks, strict=False):
        light = Image.fromarray((weights / brightest).numpy()).resize(
            picture.size, Image.Resampling.BICUBIC
        )
        light = 0.25 + 0.75 * np.asarray(light).clip(0, 1)[..., None]
        axis.imshow(np.asarray(picture) / 255 * light)
        axis.set_title(f"{word}  {100 * float(weights.max()):.0f} %", fontsize=10)
    return figure


def scores_figure(rows: Sequence[Generated], across: str, up: str) -> Figure:
    """Draw one score of each picture against another."""
    figure, (axis,) = _axes(1, 1, height=4.0)
    axis.scatter(*zip(*((one.scores[across], one.scores[up]) for one in rows), strict=True), s=8)
    _name(axis, TABLE[up].label, TABLE[across].label)
    return figure


def bands_figure(covered: Coverage) -> Figure:
    """Draw the share of words that are said at least once, by how often people use them."""
    figure, (axis,) = _axes(1, 1, height=3.0)
    shares = [100 * share for share in covered.bands.values()]
    lows = list(covered.bands)
    names = [f"{low}–{high - 1}" if high > low + 1 else low for low, high in pairwise(lows)]
    axis.bar([*map(str, names), f"{lows[-1]} or more"], shares)
    _name(axis, "% of words that are said", "times in the references")
    return figure


def _new(seen: Counter[str], caption: str) -> int:
    before = len(seen)
    seen.update(tokenize(caption))
    return len(seen) - before


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, 37) for line in text.splitlines())


def _axes(rows: int, columns: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _name(axis: Axes, title: str, below: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(below, fontsize=9)
    axis.grid(color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
