"""What the page says of pictures: a visitor's choices enter, HTML leaves. Next: blocks.py.

Every text in it is escaped: a stranger's checkpoint chooses its words, a visitor his file names.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from captioning import UserError
from captioning.captioner import Captioner
from captioning.features.images import Preprocess
from captioning.search.beam import beam_search, greedy_search
from captioning.search.sample import sample
from captioning.web.caption_table import problem, table
from captioning.web.thumbnails import data_uri, open_picture

MOST = 500  # pictures at once
DRAWS = 5  # samples
BEST = 10  # sentences of a model
SHOWN = 960  # pixels, the longest side
HINT = '<p class="hint">Drop a picture, or several for a table of captions.</p>'


def answer(
    captioners: Mapping[str, Captioner],
    paths: Sequence[str],
    search: str,
    width: int,
    temperature: float,
    labels: Sequence[str],
) -> Iterator[str]:
    """Return what the page shows of the pictures that are picked, piece by piece.

    By `neighbours` each captioner searches and reranks as it does.
    """
    draw = partial(sample, samples=DRAWS, temperature=temperature, seed=random.getrandbits(31))
    method = {
        "greedy": greedy_search,
        "beam": partial(beam_search, width=int(width)),
        "sampling": draw,
    }.get(search)
    units = {"sampling": "log-probability", "neighbours": "score by training pictures"}
    # Visitors may search in different ways at once, with the same networks.
    chosen = {
        label: Captioner(
            one.encoder,
            one.decoder,
            one.vocabulary,
            method or one.search,
            None if method else one.rerank,
        )
        for label, one in captioners.items()
        if label in labels
    }
    try:
        if not paths:
            yield HINT
        elif not chosen:
            yield problem("Choose a model.")
        elif len(paths) > MOST:
            yield problem(
                f"{len(paths)} pictures are more than the {MOST} that this page takes at once; "
                "for a large folder type python -m captioning.caption"
            )
        elif len(paths) == 1:
            yield look(paths[0], chosen, units.get(search, "log-probability a word"))
        else:
            yield from table(paths, chosen)
    except UserError as error:
        yield problem(str(error))


def look(path: str, captioners: Mapping[str, Captioner], unit: str) -> str:
    """Return one picture with each captioner's sentences and where each word was looked for."""
    picture = open_picture(path)
    cards = "".join(card(label, one, picture, unit) for label, one in captioners.items())
    return (
        '<div class="look"><figure>'
        f'<div class="seen" style="--ratio:{picture.width / picture.height}">'
        f'<img src="{data_uri(picture, SHOWN)}" alt="{escape(Path(path).name)}">'
        "<canvas></canvas></div><figcaption></figcaption></figure>"
        f'<div class="models">{cards}</div></div>'
    )


def card(label: str, captioner: Captioner, picture: Image.Image, unit: str) -> str:
    """Return what one captioner says of a picture: its caption, and what else was found."""
    features = captioner.features(picture)
    attends = hasattr(captioner.decoder, "attention")
    rows = []
    for text, score in captioner.alternatives(features)[:BEST]:
        words = sentence(text, captioner.attention(features, text)) if attends else escape(text)
        tab = ' tabindex="0"' if attends else ""
        rows.append(f'<li><p{tab}>{words}</p><span class="score">{_number(score)}</span></li>')
    note = "" if attends else '<p class="note">This model does not show where it looks.</p>'
    return (
        f'<section class="model" data-place="{_place(picture, captioner.encoder.preprocess)}">'
        f"<header><h2>{escape(label)}</h2><span>{unit}</span></header><ol>{''.join(rows)}</ol>{note}</section>"
    )


def sentence(text: str, looked: Sequence[tuple[str, Float[Tensor, "height width"]]]) -> str:
    """Return a caption whose words carry their attention, 00 to ff a region, ff the most."""
    html, at = "", 0
    for word, weights in looked:
        start = text.find(word, at)
        if start < 0:  # the end, and brackets, which are read as words
            continue
        levels = (255 * weights / weights.max()).round().to(torch.uint8).flatten().tolist()
        html += (
            f'{escape(text[at:start])}<span class="word" data-side="{len(weights)}" '
            f'data-map="{bytes(levels).hex()}">{escape(word)}</span>'
        )
        at = start + len(word)
    return html + escape(text[at:])


def _number(score: float) -> str:
    return f"{score:.2f}".replace("-", "−")


def _place(picture: Image.Image, preprocess: Preprocess) -> str:
    """Return in CSS which part of a picture an encoder sees: all of it, or the crop."""
    width, height = 100.0, 100.0
    if preprocess.resize:
        side = min(picture.size) * preprocess.image_size / preprocess.resize
        width, height = 100 * side / picture.width, 100 * side / picture.height
    left, top = (100 - width) / 2, (100 - height) / 2
    return f"left:{left:.2f}%;top:{top:.2f}%;width:{width:.2f}%;height:{height:.2f}%"
