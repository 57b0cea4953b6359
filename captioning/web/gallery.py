"""A page of validation pictures with their captions, to be looked at while the run trains.

`Generated` rows enter; gallery.html (opens from disk, fetches nothing) and captions.csv leave.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from itertools import repeat
from pathlib import Path
from string import Template
from urllib.parse import quote

import pytorch_lightning as pl

from captioning import UserError
from captioning.data.atomic import atomic_write
from captioning.data.image_files import load_image
from captioning.features.hashes import fingerprint_file
from captioning.training.validation import Generated, ValidationCaptions, evenly_spaced

TEMPLATE = Path(__file__).with_suffix(".html")
THUMBNAIL = 320  # pixels, the longest side


class Gallery(pl.Callback):
    """Writes into `folder`, after each validation, what the model says now.

    captions.csv holds every validation picture, gallery.html `images` of them: the same ones
    each time, chosen evenly over the split.
    """

    needs_captions = True

    def __init__(self, folder: str, images: int = 1000):
        self.folder = Path(folder)
        self.images = images

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both files; the check before training is left out."""
        if trainer.sanity_checking:
            return
        generated = ValidationCaptions.of(trainer)  # a collective where there are more processes
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_captions(self.folder / "captions.csv", generated)
        summary: dict[str, int | float] = {"images": len(generated)}
        for key, value in trainer.callback_metrics.items():
            if key.startswith("val/"):
                summary[key.removeprefix("val/")] = float(value)
        title = " / ".join(self.folder.resolve().parts[-2:])
        rows = evenly_spaced(generated, self.images)
        write_gallery(self.folder / "gallery.html", title, summary, rows)


def write_captions(path: Path, rows: Sequence[Generated]) -> None:
    """Write a CSV of image, path, caption and a column a score; a missing score is empty."""
    keys = _score_keys(rows)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "path", "caption", *keys])
        writer.writeheader()
        for record, caption, scores in rows:
            named = {"image": record.image_id, "path": record.path, "caption": caption}
            writer.writerow(named | scores)


def write_gallery(
    path: Path, title: str, summary: Mapping[str, int | float], rows: Sequence[Generated]
) -> None:
    """Write one static page, and the pictures' thumbnails into a folder called as the page.

    `summary` holds the corpus scores for the head. Thumbnails that exist are kept. A picture
    that cannot be read any more leaves a blank: it should not end a training.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    paths = list(dict.fromkeys(row.record.path for row in rows))  # a file is one thread's
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow works outside Python's lock
        made = dict(zip(paths, pool.map(_thumbnail, paths, repeat(folder)), strict=True))
    keys = _score_keys(rows)
    orders = [
        f'<option value="{at} {sign}">{escape(key)}, {name} first</option>'
        for at, key in enumerate(keys)
        for sign, name in ((1, "lowest"), (-1, "highest"))
    ]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        summary=_definitions(summary, digits=3),
        orders="".join(orders),
        count=f"{len(rows):,}",
        cards="\n".join(_card(row, keys, made[row.record.path]) for row in rows),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _score_keys(rows: Sequence[Generated]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.scores))


def _definitions(scores: Mapping[str, int | float], digits: int) -> str:
    def number(value: int | float) -> str:
        return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"

    return "".join(
        f"<div><dt>{escape(key).replace('_', '_<wbr>')}</dt><dd>{number(value)}</dd></div>"
        for key, value in scores.items()
    )


def _card(row: Generated, keys: Sequence[str], thumbnail: str | None) -> str:
    record = row.record
    picture = (
        f'<img src="{thumbnail}" alt="" loading="lazy" decoding="async">'
        if thumbnail
        else "the picture cannot be read"
    )
    references = "".join(f"<li>{escape(reference)}</li>" for reference in record.captions)
    scores = " ".join(str(row.scores.get(key, "nan")) for key in keys)
    return (
        f'<li data-scores="{scores}"><div class="picture">{picture}</div><div class="text">'
        f'<p class="caption">{escape(row.caption)}</p>'
        f'<dl class="scores">{_definitions(row.scores, digits=2)}</dl>'
        f'<ul class="references">{references}</ul>'
        f'<p class="image">{escape(record.image_id)}</p></div></li>'
    )


def _thumbnail(source: str, folder: Path) -> str | None:
    """Return where the page finds the picture's thumbnail, made if it is not there."""
    try:
        # Named by its source as it is now: another page, another choice of pictures or another
        # picture of the same name cannot mix them up.
        target = folder / f"{fingerprint_file(source).hex()}.jpg"
        image = None if target.exists() else load_image(source)
    except UserError:
        return None
    if image:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        with atomic_write(target) as temporary:
            image.save(temporary, format="JPEG", quality=80)
    return f"{quote(folder.name)}/{target.name}"
