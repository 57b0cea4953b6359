"""Preprocess images for an encoder, and read many of them ahead in threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from captioning import UserError
from captioning.data.image_files import load_image, resize_image, upright_rgb


@dataclass(frozen=True)
class Preprocess:
    """Resize an image and normalize its pixels, as the encoder was trained.

    The whole image is resized to a square, its aspect ratio not kept: captions speak of all of it.
    With `resize`, its shorter side is resized to that and the centre is cropped, as in the
    evaluation on ImageNet.
    """

    image_size: int
    resize: int | None
    mean: list[float]
    std: list[float]
    interpolation: str

    def __call__(self, image: Image.Image) -> UInt8[Tensor, "3 height width"]:
        """Return the pixels that the network sees of an image of any size and mode."""
        image = resize_image(upright_rgb(image), self.image_size, self.resize, self.interpolation)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def normalize(
        self, pixels: UInt8[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return the network's input, on the device of the pixels."""
        mean, std = (
            torch.tensor(values)[:, None, None].to(pixels.device, non_blocking=True)
            for values in (self.mean, self.std)
        )
        return pixels.float().div_(255).sub_(mean).div_(std)


def read_ahead(
    paths: Sequence[str], preprocess: Preprocess, batch_size: int
) -> Iterator[list[UInt8[Tensor, "3 height width"] | str]]:
    """Yield batches of images as `preprocess` returns them; for an unreadable one, the reason.

    The next batch is read in threads while the caller works on this one; no more is in memory.
    """

    def read(path: str) -> Tensor | str:
        try:
            return preprocess(load_image(path))
        except UserError as error:
            return str(error)

    # Under torchrun, LOCAL_WORLD_SIZE processes share this machine.
    threads = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        following = pool.map(read, paths[:batch_size])
        for end in range(batch_size, len(paths) + batch_size, batch_size):
            current, following = following, pool.map(read, paths[end : end + batch_size])
            yield list(current)
