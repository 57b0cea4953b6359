"""Small pieces of markup that all pages are made of: text enters, HTML leaves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from captioning.web.plots import SERIES


def name(label: str) -> str:
    """Return a label that may break where its parts end."""
    return re.sub(r"([._=/])", r"\1<wbr>", escape(label))


def table(head: Sequence[str], body: str) -> str:
    """Return a table of these columns, the first of which stays where the rest scrolls."""
    names = "".join(f"<th>{escape(one)}</th>" for one in head)
    return f'<div class="card table"><table><thead><tr>{names}</tr></thead>{body}</table></div>'


def legend(labels: Sequence[str], others: str = "") -> str:
    """Return which line is whose; `others` says whose the pale, dashed line is."""
    lines = [
        f'<li><i style="color: var(--series-{number % SERIES})"></i>{escape(label)}</li>'
        for number, label in enumerate(labels)
    ]
    if others:
        dashed = '<i style="color: var(--soft); border-style: dashed"></i>'
        lines.append(f"<li>{dashed}{escape(others)}</li>")
    return f'<ul class="legend">{"".join(lines)}</ul>'


def cards(drawn: Sequence[str]) -> str:
    """Return plots side by side, as many as there is room for."""
    return f'<div class="plots">{"".join(f"<div class=card>{one}</div>" for one in drawn)}</div>'
