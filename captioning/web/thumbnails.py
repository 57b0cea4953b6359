"""What visitors bring: a file enters; a picture leaves, or a sentence that says why not.

Next: answers.py says what is on it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from captioning import UserError
from captioning.data.image_files import load_image

THUMBNAIL = 120  # pixels, the longest side


def open_picture(path: str) -> Image.Image:
    """Read what a visitor brought; the sentence of the UserError names the file, not its folder."""
    try:
        return load_image(path)
    except UserError as error:
        raise UserError(str(error).replace(path, Path(path).name)) from None


def strip(paths: Sequence[str]) -> str:
    """Return small pictures to choose from; one that cannot be read is left out."""
    buttons = []
    for at, path in enumerate(paths):
        try:
            picture = data_uri(open_picture(path), THUMBNAIL)
        except UserError:
            continue
        name = escape(Path(path).name)
        buttons.append(f'<button data-at="{at}"><img src="{picture}" alt="{name}"></button>')
    return f'<div class="strip">{"".join(buttons)}</div>'


def data_uri(picture: Image.Image, side: int) -> str:
    """Return a picture, no larger than `side`, as an address that holds it."""
    smaller = picture.copy()
    smaller.thumbnail((side, side))
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
