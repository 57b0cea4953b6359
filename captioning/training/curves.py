"""The run's curves in one picture: losses, scores, BERT similarity and learning rate.

Metrics by epoch enter; a PNG leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import BERT, TABLE, keys_from

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Mapping[int, Mapping[str, float]]


def draw_curves(path: Path, title: str, history: History, best: int | None = None) -> None:
    """Draw a panel for each of `panels` that has values; a dotted line marks the `best` epoch.

    `history` holds metrics by epoch; an epoch may lack some. Without any value, draws nothing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logged = {key for metrics in history.values() for key in metrics}
    drawn = {
        name: present
        for name, keys in panels().items()
        if (present := [key for key in keys if key in logged])
    }
    if not drawn:
        return
    columns = min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(5.5 * columns, 3.4 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    dotted = "" if best is None else f" (dotted: the best epoch, {best})"
    figure.suptitle(title + dotted, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes[len(drawn) :]:
        axis.remove()
    for axis, (name, keys) in zip(axes, drawn.items(), strict=False):
        _draw_panel(axis, name, keys, history, best)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def panels() -> dict[str, list[str]]:
    """Return what each panel shows, by its title, where the run logged it."""
    scores = {key: score for key, score in TABLE.items() if score.function and score.rank < 3}
    return {
        "loss (nats a word)": ["train/loss", "val/loss"],
        "reward (CIDEr-D in training)": ["train/reward"],
        "scores": [f"val/{key}" for key, score in scores.items() if score.inputs != BERT],
        "BERT similarity": [f"val/{key}" for key in keys_from(BERT)],
        "learning rate": ["learning_rate"],
    }


def _draw_panel(axis: Axes, name: str, keys: list[str], history: History, best: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    for key in keys:
        epochs = [epoch for epoch in sorted(history) if key in history[epoch]]
        values = [history[epoch][key] for epoch in epochs]
        axis.plot(epochs, values, marker="o", markersize=3, linewidth=1.5, label=key)
    if best is not None:
        axis.axvline(best, color="0.6", linestyle=":", linewidth=1)
    axis.set_title(name, fontsize=10, loc="left")
    axis.set_xlabel("epoch", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    if len(keys) > 1:
        axis.legend(fontsize=8, frameon=False)
