"""Small plots as inline SVG whose colours are the page's: numbers enter, markup leaves.

matplotlib knows no CSS, so they are drawn in the light page's colours, and each of these is then
given its variable of style.css.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captioning.evaluation.breakdowns import LengthScores

INKS = {"ink": "#1c1b19", "soft": "#66635c", "line": "#e0dfda"}
COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#86198f", "#a16207", "#0e7490")
SERIES = len(COLOURS)  # then they begin again
DOTS = {"marker": "o", "markersize": 3.5}
SIZE = (4.0, 2.7)  # inches: a phone's width at the size of its text


def length_plot(title: str, groups: Sequence[LengthScores]) -> str:
    """Draw each system's mean score by the length of its captions, with 95 % intervals."""
    figure, axes = plot("words in the caption", title)
    for number, (lengths, means, errors) in enumerate(groups):
        colour, low, high = series(number), means - 1.96 * errors, means + 1.96 * errors
        axes.fill_between(lengths, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(lengths, 100 * means, color=colour, **DOTS)
    return svg(figure, title)


def shares_plot(title: str, systems: Sequence[np.ndarray], people: np.ndarray) -> str:
    """Draw how often each length occurs, as a share: systems and people."""
    figure, axes = plot("words in the caption", title)
    everyone = [(people, INKS["soft"], "--")]
    everyone += [(lengths, series(number), "-") for number, lengths in enumerate(systems)]
    # A single rambling caption would stretch the axis.
    longest = max(sorted(lengths)[-1 - len(lengths) // 200] for lengths, _, _ in everyone)
    for lengths, colour, style in everyone:
        shares = [100 * (lengths == length).mean() for length in range(longest + 2)]
        axes.step(range(longest + 2), shares, where="mid", color=colour, linestyle=style)
    axes.set_ylim(bottom=0)
    return svg(figure, title)


def references_plot(
    title: str, systems: Sequence[Sequence[float]], people: Sequence[float] | None
) -> str:
    """Draw scores against 1, 2, … references."""
    figure, axes = plot("references a picture", title)
    lines = [(scores, series(number), "-") for number, scores in enumerate(systems)]
    if people:
        lines.insert(0, (people, INKS["soft"], "--"))
    for scores, colour, style in lines:
        numbers = range(1, len(scores) + 1)
        percent = [100 * score for score in scores]
        axes.plot(numbers, percent, color=colour, linestyle=style, **DOTS)
    axes.set_ylim(bottom=0)
    return svg(figure, title)


def bands_plot(title: str, systems: Sequence[Mapping[int, float]]) -> str:
    """Draw the share of words that are said at least once, by how frequent they are."""
    figure, axes = plot("times in the references, from … on", title)
    for number, bands in enumerate(systems):
        percent = [100 * share for share in bands.values()]
        axes.plot(range(len(bands)), percent, color=series(number), **DOTS)
    axes.set_xticks(range(len(systems[0])), [str(low) for low in systems[0]])
    axes.set_ylim(-3, 104)
    return svg(figure, title)


def series(number: int) -> str:
    """Return the colour of a system."""
    return COLOURS[number % SERIES]


def plot(below: str, title: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """Return an empty plot in the style of the pages; `below` names its x axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left", color=INKS["ink"])
    axes.set_xlabel(below, fontsize=9, color=INKS["soft"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", color=INKS["line"])
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INKS["line"])
    axes.tick_params(labelsize=9, color=INKS["line"], labelcolor=INKS["soft"], length=0)
    return figure, axes


def svg(figure: Figure, title: str) -> str:
    """Return the figure as markup in the page's colours; `title` is another one for each plot."""
    from matplotlib import rc_context

    text = io.StringIO()
    # Letters stay letters; names of clip paths must differ between the plots of a page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', drawing, count=1)
    drawing = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawing, count=1)
    for name, colour in INKS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    for number, colour in enumerate(COLOURS):
        drawing = drawing.replace(colour, f"var(--series-{number})")
    return drawing
