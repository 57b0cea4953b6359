"""Read an image file of any kind: training, captioning, pages and `verify` by one function."""

from pathlib import Path

from PIL import Image

from captioning import UserError
from captioning.data.image_list import ADDRESS
from captioning.data.pixels import read_image


def load_image(path: str | Path) -> Image.Image:
    """Read an image as `read_image` does. Raises UserError if it cannot."""
    try:
        return read_image(path)
    except ValueError as error:
        message = str(error)
        if ADDRESS.match(str(path)):
            reason = "nothing is fetched from the network; download it"
            message = f"{path} cannot be read as an image: {reason}"
        raise UserError(message) from error
