"""Draw small line plots as inline SVG in the colours of the page.

matplotlib knows no CSS: plots have the colours of the light page, which `svg` then replaces by the
variables of style.css.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INKS = {"ink": "#1c1b19", "soft": "#66635c", "line": "#e0dfda", "card": "#ffffff"}
COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#86198f", "#a16207", "#0e7490")
DOTS = {"marker": "o", "markersize": 3.5}


class Line(NamedTuple):
    """The points of a line, and half the interval around each, if any."""

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    half_intervals: np.ndarray | None = None


def line_plot(
    title: str,
    x_label: str,
    lines: Sequence[Line],
    human: Line | None = None,
    steps: bool = False,
    from_zero: bool = True,
    tick_labels: Sequence[str] | None = None,
) -> str:
    """Return a plot with a line per system, and a dashed one of human captions, as SVG."""
    figure, axes = empty_plot(x_label, title)
    styles = [{"color": COLOURS[at % len(COLOURS)]} for at in range(len(lines))]
    if human:
        lines = [human, *lines]
        styles.insert(0, {"color": INKS["soft"], "linestyle": "--"})
    for (x, y, half), style in zip(lines, styles, strict=True):
        if half is not None:
            axes.fill_between(x, y - half, y + half, color=style["color"], alpha=0.15, linewidth=0)
        if steps:
            axes.step(x, y, where="mid", **style)
        else:
            axes.plot(x, y, **DOTS, **style, clip_on=False)
    if from_zero:
        axes.set_ylim(bottom=0)
    if tick_labels:
        axes.set_xticks(range(len(tick_labels)), tick_labels)
    return svg(figure)


def empty_plot(
    x_label: str, title: str, size: tuple[float, float] = (4.0, 2.7)
) -> tuple[Figure, Axes]:
    """Return an empty plot in the style of the pages, as wide in inches as a phone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left", color=INKS["ink"])
    axes.set_xlabel(x_label, fontsize=9, color=INKS["soft"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", color=INKS["line"])
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INKS["line"])
    axes.tick_params(labelsize=9, color=INKS["line"], labelcolor=INKS["soft"], length=0)
    return figure, axes


def svg(figure: Figure) -> str:
    """Return a figure as SVG in the page's colours; letters stay letters."""
    from matplotlib import rc_context

    text = io.StringIO()
    no_metadata = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    drawing = "<svg" + text.getvalue().partition("<svg")[2]
    drawing = re.sub(r'width="\S+" height="\S+"', 'role="img"', drawing, count=1)
    for name, colour in [*INKS.items(), *((f"series-{n}", c) for n, c in enumerate(COLOURS))]:
        drawing = drawing.replace(colour, f"var(--{name})")
    return drawing
