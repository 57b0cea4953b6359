"""Write validation images with their captions as a page to look at while a run trains.

gallery.html opens from disk; captions.csv has the same captions as a table.
"""

from __future__ import annotations

import csv
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
from captioning.web.pages import write_page

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
        metrics = trainer.callback_metrics.items()
        scores = {key[4:]: float(value) for key, value in metrics if key.startswith("val/")}
        title = " / ".join(self.folder.resolve().parts[-2:])
        rows = evenly_spaced(generated, self.images)
        summary = {"images": len(generated)} | scores
        write_gallery(self.folder / "gallery.html", title, summary, rows)
        write_captions(self.folder / "captions.csv", generated)


def write_captions(path: Path, rows: Sequence[Generated]) -> None:
    """Write a CSV of image, path, caption and a column per score."""
    names = ["image", "path", "caption", *rows[0].scores]
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for record, caption, scores in rows:
            cells = {"image": record.image_id, "path": record.path, "caption": caption}
            writer.writerow(cells | scores)


def write_gallery(
    path: Path, title: str, summary: Mapping[str, int | float], rows: Sequence[Generated]
) -> None:
    """Write a static page, and the images' thumbnails into a folder of the page's name.

    `summary` has the corpus scores. Existing thumbnails are used again. An image that cannot be
    read any more leaves a blank: it should not end a training.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    paths = list(dict.fromkeys(row.record.path for row in rows))  # no file is written by two
    with ThreadPoolExecutor() as pool:  # Pillow works outside Python's lock
        sources = pool.map(_write_thumbnail, paths, repeat(folder))
        thumbnails = dict(zip(paths, sources, strict=True))
    write_page(path, "gallery.html", title=title, summary=summary, rows=rows, thumbnails=thumbnails)


def _write_thumbnail(source: str, folder: Path) -> str | None:
    """Return the URL of an image's thumbnail, made if need be; None for an unreadable image."""
    try:
        # Named by the source's path and state: another image of the same name has its own.
        target = folder / f"{fingerprint_file(source).hex()}.jpg"
        if not target.exists():
            image = load_image(source)
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            with atomic_write(target) as temporary:
                image.save(temporary, format="JPEG", quality=80)
    except UserError:
        return None
    return f"{quote(folder.name)}/{target.name}"
