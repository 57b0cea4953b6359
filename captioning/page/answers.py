"""What the page says: pictures and captioners enter, HTML leaves. Next: blocks.py.

Every text in it is escaped: a stranger's checkpoint chooses its words, a visitor his file names.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from captioning.captioner import Captioner
from captioning.data.records import UserError
from captioning.features.images import Preprocess, load_image

# Pillow hands other kinds, EPS for one, to programs outside.
KINDS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")
SHOWN, THUMBNAIL = 960, 120  # pixels, the longest side
CHUNK = 16


def open_picture(path: str) -> Image.Image:
    """Read what a visitor brought; the sentence of the UserError names the file, not its folder."""
    name = Path(path).name
    try:
        with Image.open(path) as image:
            if image.format not in KINDS:
                raise UnidentifiedImageError
        return load_image(path)
    except UnidentifiedImageError:
        why = "is not a picture, whatever its name: JPEG, PNG, WebP, GIF, BMP and TIFF are read"
    except UserError as error:
        raise UserError(str(error).replace(path, name)) from None
    except Exception as error:  # Pillow's readers of formats have no common class of errors
        why = f"cannot be read as a picture: {str(error).replace(path, name)}"
    raise UserError(f"{name} {why}")


def strip(paths: Sequence[str]) -> str:
    """Return small pictures to choose from; one that cannot be read is left out."""
    buttons = []
    for at, path in enumerate(paths):
        try:
            picture = _data_uri(open_picture(path), THUMBNAIL)
        except UserError:
            continue
        name = escape(Path(path).name)
        buttons.append(f'<button data-at="{at}"><img src="{picture}" alt="{name}"></button>')
    return f'<div class="strip">{"".join(buttons)}</div>'


def look(path: str, captioners: Mapping[str, Captioner], unit: str) -> str:
    """Return one picture with each captioner's sentences and where each word was looked for."""
    picture = open_picture(path)
    cards = "".join(card(label, one, picture, unit) for label, one in captioners.items())
    return (
        '<div class="look"><figure>'
        f'<div class="seen" style="--ratio:{picture.width / picture.height}">'
        f'<img src="{_data_uri(picture, SHOWN)}" alt="{escape(Path(path).name)}">'
        "<canvas></canvas></div><figcaption></figcaption></figure>"
        f'<div class="models">{cards}</div></div>'
    )


def card(label: str, captioner: Captioner, picture: Image.Image, unit: str) -> str:
    """Return what one captioner says of a picture: its caption, and what else was found."""
    features = captioner.features(picture)
    attends = hasattr(captioner.decoder, "attention")
    rows = []
    for text, score in captioner.alternatives(features):
        words = sentence(text, captioner.attention(features, text)) if attends else escape(text)
        tab = ' tabindex="0"' if attends else ""
        rows.append(f'<li><p{tab}>{words}</p><span class="score">{_number(score)}</span></li>')
    note = "" if attends else '<p class="note">This model does not look at regions.</p>'
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


def table(paths: Sequence[str], captioners: Mapping[str, Captioner]) -> Iterator[str]:
    """Caption many pictures; return the table so far, at last with its CSV."""
    rows: list[list[str]] = []
    shown: list[str] = []
    failed: list[str] = []
    for start in range(0, len(paths), CHUNK):
        names, thumbnails, inputs = [], [], {label: [] for label in captioners}
        for path in paths[start : start + CHUNK]:
            try:
                picture = open_picture(path)
            except UserError as error:
                failed.append(str(error))
                continue
            names.append(Path(path).name)
            thumbnails.append(_data_uri(picture, THUMBNAIL))
            for label, one in captioners.items():
                inputs[label].append(one.encoder.preprocess(picture))
        if names:
            said = [
                one.captions_of(torch.stack(inputs[label])) for label, one in captioners.items()
            ]
            rows += [list(row) for row in zip(names, *said, strict=True)]
            shown += thumbnails
        done = min(start + CHUNK, len(paths))
        yield _table(rows, shown, failed, list(captioners), done, len(paths))


def problem(message: str) -> str:
    """Return a sentence that says what went wrong."""
    return f'<p class="problem" role="alert">{escape(message)}</p>'


def _table(
    rows: Sequence[Sequence[str]],
    thumbnails: Sequence[str],
    failed: Sequence[str],
    labels: Sequence[str],
    done: int,
    total: int,
) -> str:
    columns = ["image", *(labels if len(labels) > 1 else ["caption"])]
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f'<tr><td><div><img src="{thumbnail}" alt=""><span>{escape(row[0])}</span></div></td>'
        f"{''.join(f'<td>{escape(text)}</td>' for text in row[1:])}</tr>"
        for thumbnail, row in zip(thumbnails, rows, strict=True)
    )
    if done < total:
        status = f'<progress max="{total}" value="{done}"></progress> {done} of {total} pictures'
    else:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        data = base64.b64encode(file.getvalue().encode()).decode()
        link = (
            f'<a download="captions.csv" href="data:text/csv;base64,{data}">Save captions.csv</a>'
        )
        status = f"<span>{len(rows)} of {total} pictures captioned</span>{link if rows else ''}"
    problems = "".join(map(problem, failed))
    return (
        f'<div class="many"><div class="status">{status}</div>{problems}'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div></div>"
    )


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


def _data_uri(picture: Image.Image, side: int) -> str:
    smaller = picture.copy()
    smaller.thumbnail((side, side))
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
