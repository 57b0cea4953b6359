"""Images become a network's input: resized and normalised by `Preprocess`.

`read_ahead` reads many files (data/image_files.py) and does that to each. Next: encoder.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from captioning import UserError
from captioning.data.image_files import load_image, upright_rgb

LONGEST = 8  # times the shorter side; a centre crop sees nothing of what is beyond


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
            image = functional.resize(cut_ends(image), [self.resize], mode)
            image = functional.center_crop(image, [self.image_size])
        return functional.normalize(functional.to_tensor(image), self.mean, self.std)


def cut_ends(image: Image.Image) -> Image.Image:
    """Cut a narrow image to `LONGEST`, which resized by its shorter side would fill the memory."""
    spare = [max(0, side - LONGEST * min(image.size)) // 2 for side in image.size]
    if not any(spare):
        return image
    return image.crop((*spare, image.width - spare[0], image.height - spare[1]))


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
