"""Draw the runs of a sweep as matplotlib figures, for its page and for notebooks.

`groups` is `rank_configs(read_runs([folder]))`: the runs of each config, the best config first. The
best six have colours of their own; the others are pale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captioning.metrics.score_table import factor_of
from captioning.sweeps.importance import Effect
from captioning.sweeps.runs import Run
from captioning.web.plots import COLOURS, DOTS, INKS, empty_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Groups = Sequence[Sequence[Run]]


def rank_style(rank: int) -> dict[str, Any]:
    """Return the colour of the config of a rank, 0 being the best, which lies above the others."""
    if rank < len(COLOURS):
        return {"color": COLOURS[rank], "zorder": 3 - rank / 1e3}
    return {"color": INKS["soft"], "alpha": 0.35, "zorder": 1}


def curves(groups: Groups, key: str) -> Figure:
    """Draw a metric of run.json's history, such as `val/cider`, by epoch, a line per run."""
    figure, axes = empty_plot("epoch", short_name(key))
    for rank, group in enumerate(groups):
        for run in group:
            epochs = [row for row in run.content.get("history", ()) if row.get(key) is not None]
            values = [factor_of(key) * row[key] for row in epochs]
            axes.plot([row["epoch"] for row in epochs], values, linewidth=1.3, **rank_style(rank))
    return figure


def scatter(groups: Groups, x: str, y: str) -> Figure:
    """Draw one of the runs' numbers against another: a setting, a score, or a key of run.json.

    A dot is a run, a line joins the means of a setting's values.
    """
    from matplotlib.ticker import EngFormatter

    dots = [
        (rank, value_of(run, x), value_of(run, y))
        for rank, group in enumerate(groups)
        for run in group
    ]
    dots = [dot for dot in dots if None not in dot]
    figure, axes = empty_plot(short_name(x), f"{short_name(y)} by {short_name(x)}")
    values = [value for _, value, _ in dots]
    if measured(groups[0][0], x) is not None:
        place, ticks = float, None
        if max(values, default=0) >= 1e4:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.locator_params("x", nbins=5)
    else:
        place, ticks = setting_scale(values)
    if ticks:
        axes.set_xticks(*ticks)
        means = [
            np.mean([score for _, value, score in dots if place(value) == at]) for at in ticks[0]
        ]
        axes.plot(ticks[0], means, color=INKS["soft"], linewidth=1, zorder=0)
    for rank, value, score in dots:
        axes.plot(place(value), score, **DOTS, linestyle="", **rank_style(rank))
    axes.margins(x=0.08)
    return figure


def parallel(groups: Groups, keys: Sequence[str], score: str) -> Figure:
    """Draw each config as a line through its settings to its mean score, an axis each."""
    figure, axes = empty_plot("", "", size=(max(6.0, 1.9 * (len(keys) + 1)), 3.4))
    columns = [[group[0].setting(key) for group in groups] for key in keys]
    scales = [setting_scale(column) for column in columns]
    means = [np.mean([run.scores[score] for run in group]) for group in groups]
    columns.append([factor_of(score) * mean for mean in means])
    scales.append((float, None))  # a score's distances mean something
    heights = []
    for at, (column, (place, ticks)) in enumerate(zip(columns, scales, strict=True)):
        places = np.array([place(value) for value in column])
        low, span = places.min(), np.ptp(places) or 1.0
        heights.append((places - low) / span)
        if not ticks:
            digits = ".4g" if at < len(keys) else ".3f" if "loss" in score else ".1f"
            ends = np.unique([low, places.max()])
            ticks = ends, [f"{end:{digits}}" for end in ends]
        # Beside the outer axes, where no line is, and above the lines elsewhere.
        style = {"ha": "right" if at == 0 else "left", "fontsize": 8.5, "color": INKS["soft"]}
        style["va"] = "center" if at in (0, len(keys)) else "bottom"
        style |= {"zorder": 4, "bbox": {"color": INKS["card"], "alpha": 0.8, "pad": 1}}
        for position, text in zip(*ticks, strict=True):
            axes.text(at + (-0.05 if at == 0 else 0.05), (position - low) / span, text, **style)
        axes.axvline(at, color=INKS["line"], zorder=0)
    for rank, line in reversed(list(enumerate(zip(*heights, strict=True)))):
        axes.plot(range(len(line)), line, linewidth=1.5, **rank_style(rank))
    names = [short_name(key) for key in [*keys, score]]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.1)
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.1)
    return figure


def bars(effects: Sequence[Effect]) -> Figure:
    """Draw each setting's share of the variance; a mark stands at the share by chance."""
    figure, axes = empty_plot(
        "% of the score's variance", "", size=(4.0, max(1.4, 0.75 + 0.3 * len(effects)))
    )
    for at, (key, share, by_chance) in enumerate(effects):
        colour = INKS["soft"] if key == "seed" else COLOURS[0]
        axes.barh(at, 100 * share, color=colour, height=0.6)
        if by_chance is not None:
            axes.vlines(100 * by_chance, at - 0.4, at + 0.4, color=INKS["ink"], linewidth=1.2)
    axes.set_yticks(range(len(effects)), [effect.key for effect in effects])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xticks=range(0, 101, 25))
    axes.grid(False)
    return figure


def measured(run: Run, name: str) -> int | float | None:
    """Return a score as tables show it, a number of run.json such as `epochs`, or None."""
    if run.scores.get(name) is not None:
        return factor_of(name) * run.scores[name]
    value = run.content.get(name)
    return value if isinstance(value, int | float) else None  # `encoder` is a setting, too


def value_of(run: Run, name: str) -> Any:
    """Return a score, a number of run.json, or a setting."""
    number = measured(run, name)
    return run.setting(name) if number is None else number


def setting_scale(
    values: Sequence[Any],
) -> tuple[Callable[[Any], float], tuple[list[float], list[str]] | None]:
    """Return a function from a setting's value to its place on an axis, and the ticks.

    Names and up to six numbers stand in order at equal distances; more numbers stand at their
    values, with matplotlib's own ticks (None).
    """
    distinct = list({repr(value): value for value in values}.values())
    are_numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in distinct)
    if are_numbers and len(distinct) > 6:
        return float, None
    distinct.sort(key=None if are_numbers else str)
    places = {repr(value): float(at) for at, value in enumerate(distinct)}
    texts, most = [], max(16, 40 // len(distinct))
    for value in distinct:
        text = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        texts.append(text if len(text) <= most else f"…{text[1 - most :]}")
    return lambda value: places[repr(value)], (list(places.values()), texts)


def short_name(key: str) -> str:
    """Return a key without the group it is of."""
    return key.removeprefix("val/").rpartition(".")[2].replace("_", " ")
