"""What people look at after a sweep, as matplotlib figures: runs by config enter, figures leave.

`groups` is `rank_configs(read_runs([folder]))`: the runs of each config, the best config first. The
best six have colours of their own; the others are pale. A page gets them by reports/plots.svg.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captioning.metrics.score_table import factor_of
from captioning.sweeps.importance import Effect
from captioning.sweeps.runs import Run
from captioning.web.plots import DOTS, INKS, SERIES, plot, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Groups = Sequence[Sequence[Run]]
WIDEST = 16  # letters of a value on an axis


def look(rank: int) -> dict[str, Any]:
    """Return the colour of the config of that rank, the best being 0, and draw it above others."""
    if rank < SERIES:
        return {"color": series(rank), "zorder": 3 - rank / 1e3}
    return {"color": INKS["soft"], "alpha": 0.35, "zorder": 1}


def curves(groups: Groups, key: str) -> Figure:
    """Draw a metric of run.json's history, such as `val/cider`, by epoch, a line a run."""
    figure, axes = plot("epoch", shown_name(key))
    for rank, group in enumerate(groups):
        for run in group:
            epochs = [row for row in run.content.get("history", ()) if row.get(key) is not None]
            values = [factor_of(key) * row[key] for row in epochs]
            axes.plot([row["epoch"] for row in epochs], values, linewidth=1.3, **look(rank))
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
        if value_of(run, x) is not None and value_of(run, y) is not None
    ]
    figure, axes = plot(shown_name(x), f"{shown_name(y)} by {shown_name(x)}")
    place, ticks = scale([value for _, value, _ in dots])
    if is_measured(groups[0][0], x):
        place, ticks = float, None
        if max((value for _, value, _ in dots), default=0) >= 1e4:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if ticks:
        axes.set_xticks(*ticks)
        means = [
            np.mean([score for _, value, score in dots if place(value) == at]) for at in ticks[0]
        ]
        axes.plot(ticks[0], means, color=INKS["soft"], linewidth=1, zorder=0)
    for rank, value, score in dots:
        axes.plot(place(value), score, **DOTS, linestyle="", **look(rank))
    axes.margins(x=0.08)
    return figure


def parallel(groups: Groups, keys: Sequence[str], score: str) -> Figure:
    """Draw each config as a line through its settings to its score, an axis each."""
    figure, axes = plot("", "", size=(max(6.0, 1.9 * (len(keys) + 1)), 3.4))
    columns: list[list[Any]] = [[group[0].setting(key) for group in groups] for key in keys]
    means = [np.mean([run.scores[score] for run in group]) for group in groups]
    columns.append([float(factor_of(score) * mean) for mean in means])
    heights = []
    for at, column in enumerate(columns):
        place, ticks, digits = *scale(column), ".4g"
        if at == len(keys):  # a score is measured: its distances mean something
            place, ticks, digits = float, None, ".3f" if "loss" in score else ".1f"
        low, high = min(map(place, column)), max(map(place, column))
        span = high - low or 1.0
        heights.append([(place(value) - low) / span for value in column])
        ends = sorted({low, high})
        marks = ticks or (ends, [f"{end:{digits}}" for end in ends])
        # Beside the outer axes, where no line is, and above the lines elsewhere.
        side = {"ha": "right" if at == 0 else "left", "fontsize": 8.5, "color": INKS["soft"]}
        side["va"] = "center" if at in (0, len(keys)) else "bottom"
        for mark, text in zip(*marks, strict=True):
            axes.text(at + (-0.05 if at == 0 else 0.05), (mark - low) / span, text, **side)
        axes.axvline(at, color=INKS["line"], zorder=0)
    for rank in reversed(range(len(groups))):
        line = [height[rank] for height in heights]
        axes.plot(range(len(line)), line, linewidth=1.5, **look(rank))
    names = [shown_name(key) for key in [*keys, score]]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.1)
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.1)
    return figure


def bars(effects: Sequence[Effect]) -> Figure:
    """Draw how much of the variance goes with each setting; a line marks what chance alone does."""
    height = 0.75 + 0.3 * len(effects)
    figure, axes = plot("% of the score's variance", "", size=(4.0, max(1.4, height)))
    for at, (key, share, by_chance) in enumerate(effects):
        colour = INKS["soft"] if key == "seed" else series(0)
        axes.barh(-at, 100 * share, color=colour, height=0.6)
        if by_chance is not None:
            ends = [-at - 0.4, -at + 0.4]
            axes.plot([100 * by_chance] * 2, ends, color=INKS["ink"], linewidth=1.2)
    axes.set_yticks([-at for at in range(len(effects))], [effect.key for effect in effects])
    axes.set_xlim(0, 100)
    axes.grid(False)
    return figure


def value_of(run: Run, name: str) -> Any:
    """Return a score as it is shown, a number of run.json such as `epochs`, or a setting."""
    if run.scores.get(name) is not None:
        return factor_of(name) * run.scores[name]
    number = _number(run, name)
    return run.setting(name) if number is None else number


def is_measured(run: Run, name: str) -> bool:
    """Tell whether a name is of a score or a number of run.json, and not of a setting."""
    return run.scores.get(name) is not None or _number(run, name) is not None


def _number(run: Run, name: str) -> int | float | None:
    """Return a number of run.json; `encoder`, which is a setting too, is none there."""
    value = run.content.get(name)
    return value if isinstance(value, int | float) else None


def scale(values: Sequence[Any]) -> tuple[Callable[[Any], float], tuple[list, list] | None]:
    """Return where a setting's values stand on an axis, and its ticks; None: matplotlib's.

    Few numbers stand in order at equal distances, as names do; many as they are.
    """
    different = list({repr(value): value for value in values}.values())
    numbers = all(isinstance(one, int | float) and math.isfinite(one) for one in different)
    if numbers and len(different) > 6:
        return float, None
    different.sort(key=(lambda one: one) if numbers else str)
    order = {repr(value): float(at) for at, value in enumerate(different)}
    short = [f"{one:.4g}" if isinstance(one, float) else str(one) for one in different]
    texts = short if len(set(short)) == len(short) else list(map(str, different))
    texts = ["–" if text == "None" else text for text in texts]
    texts = [f"…{text[1 - WIDEST :]}" if len(text) > WIDEST else text for text in texts]
    return lambda value: order[repr(value)], (list(order.values()), texts)


def shown_name(key: str) -> str:
    """Return a key without the group it is of."""
    return key.removeprefix("val/").rpartition(".")[2].replace("_", " ")
