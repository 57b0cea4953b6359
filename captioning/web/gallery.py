"""Write validation images with their captions as a page to look at while a run trains.

gallery.html opens from disk; captions.csv has the same captions as a table.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from urllib.parse import quote

import pytorch_lightning as pl

from captioning import UserError
from captioning.data.atomic import atomic_write
from captioning.data.image_files import load_image
from captioning.features.hashes import fingerprint_file
from captioning.training.validation import Generated, ValidationCaptions, evenly_spaced
from captioning.web.pages import render

THUMBNAIL = 320  # pixels, the longest side


class Gallery(pl.Callback):
    """Writes the captions of each validation into `folder`.

    captions.csv holds every validation image, gallery.html `images` of them: the same ones each
    time, chosen evenly over the split.
    """

    needs_captions = True

    def __init__(self, folder: str, images: int = 1000):
        self.folder = Path(folder)
        self.images = images

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both files, except in the sanity check before training."""
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
    names = ["image", "path", "caption", *_score_keys(rows)]
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for record, caption, scores in rows:
            cells = {"image": record.image_id, "path": record.path, "caption": caption}
            writer.writerow(cells | scores)


def write_gallery(
    path: Path, title: str, summary: Mapping[str, int | float], rows: Sequence[Generated]
) -> None:
    """Write one static page, and the images' thumbnails into a folder of the page's name.

    `summary` holds the corpus scores for the head. Existing thumbnails are used again. An image
    that cannot be read any more leaves a blank: it should not end a training.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    paths = list(dict.fromkeys(row.record.path for row in rows))  # no file is written by two
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow works outside Python's lock
        thumbnails = dict(
            zip(paths, pool.map(_write_thumbnail, paths, repeat(folder)), strict=True)
        )
    page = render(
        "gallery.html",
        title=title,
        summary=summary,
        keys=_score_keys(rows),
        rows=rows,
        thumbnails=thumbnails,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _score_keys(rows: Sequence[Generated]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.scores))


def _write_thumbnail(source: str, folder: Path) -> str | None:
    """Return the URL of an image's thumbnail, made if need be; None for an unreadable image."""
    try:
        # The name depends on the source's path and state, so that another page, another choice of
        # images or another image of the same name cannot mix them up.
        target = folder / f"{fingerprint_file(source).hex()}.jpg"
        image = None if target.exists() else load_image(source)
    except UserError:
        return None
    if image:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        with atomic_write(target) as temporary:
            image.save(temporary, format="JPEG", quality=80)
    return f"{quote(folder.name)}/{target.name}"
