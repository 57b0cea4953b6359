"""Pictures: a file of any kind becomes an upright RGB picture, then a network's input.

Paths enter `load_image`, pictures enter `Preprocess`; a normalised tensor leaves. `read_ahead` does
both for many. Next: encoder.py.
"""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from captioning.data.pictures import ADDRESS
from captioning.data.records import UserError

ENOUGH = 640  # pixels a side; no classifier of torchvision reads more than 600


def load_image(path: str | Path) -> Image.Image:
    """Read a picture: upright, RGB, on white where it was transparent.

    A JPEG of at least twice `ENOUGH` on both sides is decoded at 1/2, 1/4 or 1/8 of its size,
    which takes a fraction of the time. HEIC, whatever it is called, takes the extra `heic`. Raises
    UserError where the file is missing, damaged, no picture, or larger than Pillow's limit against
    decompression bombs.
    """
    try:
        with open(path, "rb") as file, _opened(file) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"{image.width} x {image.height} pixels are too many; shrink it")
            image.draft(None, (ENOUGH, ENOUGH))
            return upright_rgb(image)
    except Exception as error:  # Pillow's readers of formats have no common class of errors
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UnidentifiedImageError):
            reason = "it is of no format that is known here"
        if ADDRESS.match(str(path)):
            reason = "nothing is fetched from the network; download it"
        raise UserError(f"{path} cannot be read as a picture: {reason}") from error


def _opened(file: io.BufferedReader) -> Image.Image:
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis") and not _reads_heic():
        raise ValueError("it is HEIC, which takes a package: pip install 'captioning[heic]'")
    return Image.open(file)


@functools.cache
def _reads_heic() -> bool:
    """Teach Pillow to read HEIC; return whether there is a package for it."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turn a copy as its EXIF orientation says, and convert it to 8-bit RGB on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it as PNG")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.info.clear()  # its EXIF was followed; Pillow reads a broken one once, but not twice
    return image


@dataclass(frozen=True)
class Preprocess:
    """What stands between a picture and the network: resize, normalise.

    The whole picture is resized to a square, its aspect ratio not kept: captions speak of all of
    it. With `resize`, its shorter side is resized to that and the centre is cut out, as in the
    evaluation on ImageNet. Plain values, so that they can be stored and sent to other processes.
    """

    image_size: int
    resize: int | None
    mean: list[float]
    std: list[float]
    interpolation: str

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """Return the network's input for a picture of any size and mode."""
        image = upright_rgb(image)
        mode = InterpolationMode(self.interpolation)
        if self.resize is None:
            image = functional.resize(image, [self.image_size, self.image_size], mode)
        else:
            image = functional.resize(image, [self.resize], mode)
            image = functional.center_crop(image, [self.image_size])
        return functional.normalize(functional.to_tensor(image), self.mean, self.std)


def read_ahead(
    paths: Sequence[str], preprocess: Preprocess, batch_size: int
) -> Iterator[list[Float[Tensor, "3 height width"] | str]]:
    """Return the inputs of the pictures, batch by batch, in order.

    The next batch is read in threads while the caller is busy with this one; no more is in memory.
    Where a picture cannot be read, the reason stands in its place.
    """

    def read(path: str) -> Tensor | str:
        try:
            return preprocess(load_image(path))
        except UserError as error:
            return str(error)

    def submit(start: int) -> list[Future]:
        return [pool.submit(read, path) for path in paths[start : start + batch_size]]

    # torchrun says how many processes share this machine.
    threads = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        ahead = submit(0)
        for start in range(0, len(paths), batch_size):
            ready, ahead = ahead, submit(start + batch_size)
            yield [future.result() for future in ready]
