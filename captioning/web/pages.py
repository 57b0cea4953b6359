"""Render web pages from the jinja templates in templates/: gallery, report, sweep and demo page.

All text is escaped, since file names and vocabularies come from strangers. A page fetches nothing:
its style, scripts, plots and most images are inside.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from captioning import UserError
from captioning.data.atomic import atomic_write_text
from captioning.data.image_files import load_image
from captioning.metrics.score_table import TABLE, format_score
from captioning.web.plots import COLOURS

TEMPLATES = Path(__file__).with_name("templates")


def breakable(label: object) -> Markup:
    """Escape a label, and let lines break where its parts end."""
    text = escape(label)
    for mark in "._=/":
        text = text.replace(mark, mark + Markup("<wbr>"))
    return text


def write_page(path: Path, template: str, **context: Any) -> None:
    """Write the page that a template makes of `context`."""
    atomic_write_text(path, ENVIRONMENT.get_template(template).render(context))


def data_uri(image: Image.Image, side: int) -> str:
    """Return an image, shrunk to at most `side` pixels on a side, as a URI that holds it."""
    thumbnail = image.copy()
    thumbnail.thumbnail((side, side))
    file = io.BytesIO()
    thumbnail.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def thumbnail_uri(path: str, side: int) -> str | None:
    """Return the `data_uri` of an image file, or None if it cannot be read."""
    try:
        return data_uri(load_image(path), side)
    except UserError:
        return None


ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters["breakable"] = breakable
ENVIRONMENT.globals |= {"TABLE": TABLE, "SERIES": len(COLOURS)}
ENVIRONMENT.globals |= {"format_score": format_score, "thumbnail_uri": thumbnail_uri}
