"""Plot a run's curves as one PNG: losses, reward and scores x100, learning rate."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import BERT, TABLE, factor_of, keys_from

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "0.92",
    "legend.edgecolor": "white",
    "lines.marker": "o",
    "lines.markersize": 3,
}


def draw_curves(
    path: Path, title: str, history: Mapping[int, Mapping[str, float]], best: int | None = None
) -> None:
    """Draw each of `panels` that has values in `history`; a dotted line marks the `best` epoch."""
    import pandas as pd
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    frame = pd.DataFrame.from_dict(history, orient="index").sort_index()
    drawn = {name: [key for key in keys if key in frame] for name, keys in panels().items()}
    drawn = {name: keys for name, keys in drawn.items() if keys}
    if not drawn:
        return
    columns = min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    with rc_context(STYLE), atomic_write(path) as temporary:
        figure = Figure(figsize=(5.5 * columns, 3.4 * rows), dpi=120, layout="constrained")
        title += "" if best is None else f" (dotted: the best epoch, {best})"
        figure.suptitle(textwrap.fill(title, 48 * columns))
        for number, (name, keys) in enumerate(drawn.items(), 1):
            axis = figure.add_subplot(rows, columns, number, title=name, xlabel="epoch")
            for key in keys:
                factor = factor_of(key) if "x100" in name else 1
                label = key if factor == 1 else key.removeprefix("val/")  # a log's key is not x100
                axis.plot(factor * frame[key].dropna(), label=label)
            axis.locator_params("x", integer=True)
            if best is not None:
                axis.axvline(best, color="0.6", linestyle=":", linewidth=1, marker="")
            if len(keys) > 1:
                axis.legend()
        figure.savefig(temporary, format="png")


def panels() -> dict[str, list[str]]:
    """Return the metrics of each panel, by its title."""
    scores = {key: score for key, score in TABLE.items() if score.function and score.rank < 3}
    return {
        "loss (nats per word)": ["train/loss", "val/loss"],
        "reward x100 (CIDEr-D in training)": ["train/reward"],
        "scores x100": [f"val/{key}" for key, score in scores.items() if score.inputs != BERT],
        "BERT similarity x100": [f"val/{key}" for key in keys_from(BERT)],
        "learning rate": ["learning_rate"],
    }
