"""Drawn scenes: a seed enters, pictures of coloured shapes and captions that are true leave.

sentences.py says what is on a picture and writes the captions; this file draws and keeps them.
Next: vocabulary.py, as for photographs.
"""

import csv
import json
import random
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from captioning import UserError
from captioning.data.readers import CaptionFolder
from captioning.data.records import Record
from captioning.data.sentences import Scene, draw_scene, read_caption, write_captions

VERSION = 1  # of pictures and captions: raise it with every change to either
KINDS = ("size", "place", "count", "relation", "relation")  # in turn; the hardest twice
SIDE = 224  # pixels
FINE = 3  # times as large while drawing, against jagged edges

PALETTE = {
    "red": (214, 40, 40),
    "green": (42, 157, 70),
    "blue": (36, 92, 214),
    "yellow": (250, 200, 20),
}
# Of the background's corners. Pooled features hardly tell left from right; the tint around a
# shape helps them.
TINTS = np.array([[(188, 228, 255), (255, 212, 192)], [(188, 228, 162), (190, 160, 216)]])


def outline(corners: int, radius: float, turn: float = 0.0) -> np.ndarray:
    """Return the corners of a regular polygon around 0, the first one on top, as complex numbers.

    x is the real part, y the imaginary one and points down; `turn` is in whole turns.
    """
    return radius * np.exp(2j * np.pi * (np.arange(corners) / corners + turn - 0.25))


OUTLINES = {
    "circle": outline(72, 1.0),
    "square": outline(4, 1.27, turn=0.125),
    "triangle": outline(3, 1.27),
}
OFFSETS = {"middle": 0, "left": -0.25, "right": 0.25, "top": -0.25j, "bottom": 0.25j}
PAIRS = {"left": np.array([-0.24, 0.24]), "above": np.array([-0.24j, 0.24j])}
RADII = {"big": (0.28, 0.33), "small": (0.08, 0.105)}


class Scenes:
    """The data source that needs no files: `images` pictures, five captions each, 80/10/10 split.

    A picture shows one object that is big or small, or one at a side, or two to four equal ones,
    or two different ones side by side or one above the other.
    """

    skip_unreadable = False  # a drawn picture that cannot be read is a fault

    def __init__(self, root: str, images: int = 1200, seed: int = 0):
        if images < 10:
            raise UserError(f"data.images={images} leaves a split empty; the least is 10")
        self.images = images
        self.seed = seed
        self.folder = Path(root).expanduser() / f"scenes-v{VERSION}-seed{seed}-{images}"

    def prepare(self) -> None:
        """Draw the folder unless it is there: pictures, captions.csv, scenes.json (the truth)."""
        if self.folder.is_dir():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            if self.folder.is_dir():
                return
            partial = Path(f"{self.folder}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            self._draw(partial)
            partial.rename(self.folder)

    def _draw(self, folder: Path) -> None:
        rows, scenes = [("image", "caption", "split")], {}
        for number in tqdm(range(self.images), "drawing scenes", unit=" pictures", disable=None):
            lots = random.Random(f"{self.seed}/{number}")  # noqa: S311
            scene = draw_scene(KINDS[number % len(KINDS)], lots)
            name = f"{number:05}.jpg"
            paint(scene, lots).save(folder / name, quality=92, subsampling=0)
            split = {8: "val", 9: "test"}.get(10 * number // self.images, "train")
            rows += [(name, caption, split) for caption in write_captions(scene, lots)]
            scenes[name] = scene
        (folder / "scenes.json").write_text(json.dumps(scenes, indent=1), encoding="utf-8")
        with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def records(self) -> list[Record]:
        """Return one record a picture; call `prepare` first."""
        return CaptionFolder(str(self.folder), "csv").records()

    @cached_property
    def scenes(self) -> dict[str, Scene]:
        """What is on each picture, by image id."""
        return json.loads((self.folder / "scenes.json").read_text(encoding="utf-8"))

    def is_true(self, image_id: str, caption: str) -> bool:
        """Tell whether a caption says all there is to say of a picture, and nothing that is not."""
        return read_caption(caption) == self.scenes[image_id]


def arrange(scene: Scene, lots: random.Random) -> list[tuple[str, str, complex, float]]:
    """Return colour, shape, place and radius of each object: the sides are at -0.5 and 0.5."""

    def shake(reach: float) -> complex:
        return complex(lots.uniform(-reach, reach), lots.uniform(-reach, reach))

    things = [(scene["colour"], scene["shape"])]
    if scene["kind"] == "relation":
        things.append((scene["other_colour"], scene["other_shape"]))
        places, radius, reach = shake(0.02) + PAIRS[scene["relation"]], (0.155, 0.175), 0.01
    elif scene["kind"] == "count":
        number = {"two": 2, "three": 3, "four": 4}[scene["count"]]
        things *= number
        places = shake(0.02) + outline(number, 0.27, turn=lots.random())
        radius, reach = (0.115, 0.13), 0.015
    else:
        places, reach = np.array([OFFSETS[scene["place"]]]), 0.03
        radius = RADII.get(scene.get("size"), (0.14, 0.17))
    size = lots.uniform(*radius)
    return [
        (colour, shape, place + shake(reach), size * lots.uniform(0.97, 1.03))
        for (colour, shape), place in zip(things, places, strict=True)
    ]


def paint(scene: Scene, lots: random.Random) -> Image.Image:
    """Draw a scene: flat shapes, a little turned, with soft shadows on a pale background."""
    side = FINE * SIDE
    tints = TINTS + [lots.uniform(-10, 10) for _ in range(3)]
    corners = Image.fromarray(tints.clip(0, 255).astype(np.uint8))
    picture = corners.resize((side, side), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))
    shadow = Image.new("L", (SIDE // 2, SIDE // 2))  # coarse: it is blurred
    polygons = []
    for colour, shape, place, radius in arrange(scene, lots):
        turned = OUTLINES[shape] * np.exp(1j * lots.uniform(-0.2, 0.2))
        points = 0.5 + 0.5j + place + radius * turned
        ink = tuple(round(min(255, max(0, c + lots.uniform(-12, 12)))) for c in PALETTE[colour])
        polygons.append((_pairs(side * points), ink))
        fallen = points + 0.018 + 0.027j
        ImageDraw.Draw(shadow).polygon(_pairs(SIDE // 2 * fallen), fill=90)
    shadow = shadow.filter(ImageFilter.GaussianBlur(3)).resize((side, side))
    picture.paste((60, 60, 80), mask=shadow)
    for points, ink in polygons:
        ImageDraw.Draw(picture).polygon(points, fill=ink)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _pairs(points: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(points.real.tolist(), points.imag.tolist(), strict=True))
