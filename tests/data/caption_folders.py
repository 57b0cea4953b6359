"""Write small folders of images and captions."""

import csv
from pathlib import Path

from PIL import Image

COLUMNS = ("image", "caption", "split")


def write_images(folder: Path, names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(folder / name, "JPEG")


def write_csv(path: Path, rows, header=COLUMNS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
