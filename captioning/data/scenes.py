"""Draw images of coloured shapes from a seed, with captions that are true by construction.

sentences.py chooses what an image shows and writes its captions.
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

from captioning import UserError
from captioning.data.progress import progress_bar
from captioning.data.readers import CaptionFolder
from captioning.data.records import Record
from captioning.data.sentences import Scene, caption_scene, draw_scene, parse_caption

VERSION = 1  # of images and captions: raise it with every change to either
KINDS = ("size", "place", "count", "relation", "relation")  # in turn; the hardest twice
SIDE = 224  # pixels
OVERSAMPLING = 3  # drawn so many times larger, against jagged edges

PALETTE = {
    "red": (214, 40, 40),
    "green": (42, 157, 70),
    "blue": (36, 92, 214),
    "yellow": (250, 200, 20),
}
# Of the background's corners. Pooled features hardly distinguish left from right; the tint around a
# shape helps them.
TINTS = np.array([[(188, 228, 255), (255, 212, 192)], [(188, 228, 162), (190, 160, 216)]])


def regular_polygon(corners: int, radius: float, turn: float = 0.0) -> np.ndarray:
    """Return the corners around 0 as x + iy (y points down), the first on top but for `turn`."""
    return radius * np.exp(2j * np.pi * (np.arange(corners) / corners + turn - 0.25))


OUTLINES = {
    "circle": regular_polygon(72, 1.0),
    "square": regular_polygon(4, 1.27, turn=0.125),
    "triangle": regular_polygon(3, 1.27),
}
OFFSETS = {"middle": 0, "left": -0.25, "right": 0.25, "top": -0.25j, "bottom": 0.25j}
PAIRS = {"left": np.array([-0.24, 0.24]), "above": np.array([-0.24j, 0.24j])}
RADII = {"big": (0.28, 0.33), "small": (0.08, 0.105)}


class Scenes:
    """The data source that needs no files: `images` of five captions each, split 80/10/10.

    An image shows one object that is big or small, or one at a side, or two to four equal ones,
    or two different ones side by side or one above the other.
    """

    skip_unreadable = False  # a drawn image that cannot be read is a fault

    def __init__(self, root: str, images: int = 1200, seed: int = 0):
        if images < 10:
            raise UserError(f"data.images={images} leaves a split empty; the least is 10")
        self.images = images
        self.seed = seed
        self.folder = Path(root).expanduser() / f"scenes-v{VERSION}-seed{seed}-{images}"

    def prepare(self) -> None:
        """Draw the folder unless it is there: images, captions.csv, scenes.json (the truth)."""
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
        for number in progress_bar(range(self.images), "drawing scenes", unit=" images"):
            rng = random.Random(f"{self.seed}/{number}")  # noqa: S311
            scene = draw_scene(KINDS[number % len(KINDS)], rng)
            name = f"{number:05}.jpg"
            paint_scene(scene, rng).save(folder / name, quality=92, subsampling=0)
            split = {8: "val", 9: "test"}.get(10 * number // self.images, "train")
            rows += [(name, caption, split) for caption in caption_scene(scene, rng)]
            scenes[name] = scene
        (folder / "scenes.json").write_text(json.dumps(scenes, indent=1), encoding="utf-8")
        with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def records(self) -> list[Record]:
        """Return one record per image; call `prepare` first."""
        return CaptionFolder(str(self.folder), "csv").records()

    @cached_property
    def scenes(self) -> dict[str, Scene]:
        """The scene of each image, by image id."""
        return json.loads((self.folder / "scenes.json").read_text(encoding="utf-8"))

    def is_true(self, image_id: str, caption: str) -> bool:
        """Return whether a caption says all there is to say of an image, and nothing else."""
        return parse_caption(caption) == self.scenes[image_id]


def place_objects(scene: Scene, rng: random.Random) -> list[tuple[str, str, complex, float]]:
    """Return colour, shape, place and radius of each object: the sides are at -0.5 and 0.5."""

    def jitter(reach: float) -> complex:
        return complex(rng.uniform(-reach, reach), rng.uniform(-reach, reach))

    objects = [(scene["colour"], scene["shape"])]
    if scene["kind"] == "relation":
        objects.append((scene["other_colour"], scene["other_shape"]))
        places, radius, reach = jitter(0.02) + PAIRS[scene["relation"]], (0.155, 0.175), 0.01
    elif scene["kind"] == "count":
        number = {"two": 2, "three": 3, "four": 4}[scene["count"]]
        objects *= number
        places = jitter(0.02) + regular_polygon(number, 0.27, turn=rng.random())
        radius, reach = (0.115, 0.13), 0.015
    else:
        places, reach = np.array([OFFSETS[scene["place"]]]), 0.03
        radius = RADII.get(scene.get("size"), (0.14, 0.17))
    size = rng.uniform(*radius)
    return [
        (colour, shape, place + jitter(reach), size * rng.uniform(0.97, 1.03))
        for (colour, shape), place in zip(objects, places, strict=True)
    ]


def paint_scene(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw a scene: flat shapes, a little turned, with soft shadows on a pale background."""
    side = OVERSAMPLING * SIDE
    tints = TINTS + [rng.uniform(-10, 10) for _ in range(3)]
    corners = Image.fromarray(tints.clip(0, 255).astype(np.uint8))
    image = corners.resize((side, side), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))
    shadow = Image.new("L", (SIDE // 2, SIDE // 2))  # coarse: it is blurred
    polygons = []
    for colour, shape, place, radius in place_objects(scene, rng):
        turned = OUTLINES[shape] * np.exp(1j * rng.uniform(-0.2, 0.2))
        points = 0.5 + 0.5j + place + radius * turned
        ink = tuple(round(min(255, max(0, c + rng.uniform(-12, 12)))) for c in PALETTE[colour])
        polygons.append((side * points, ink))
        fallen = points + 0.018 + 0.027j
        ImageDraw.Draw(shadow).polygon((SIDE // 2 * fallen).view(float).tolist(), fill=90)
    shadow = shadow.filter(ImageFilter.GaussianBlur(3)).resize((side, side))
    image.paste((60, 60, 80), mask=shadow)
    for points, ink in polygons:
        ImageDraw.Draw(image).polygon(points.view(float).tolist(), fill=ink)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
