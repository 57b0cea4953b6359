"""Plot a run's curves as one PNG: losses, reward, scores, BERT similarity and learning rate."""

from collections.abc import Mapping
from pathlib import Path

from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import BERT, TABLE, keys_from

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "0.92",
    "legend.frameon": False,
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
        figure.suptitle(title if best is None else f"{title} (dotted: the best epoch, {best})")
        for number, (name, keys) in enumerate(drawn.items(), 1):
            axis = figure.add_subplot(rows, columns, number, title=name, xlabel="epoch")
            for key in keys:
                axis.plot(frame[key].dropna(), label=key)
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
        "reward (CIDEr-D in training)": ["train/reward"],
        "scores": [f"val/{key}" for key, score in scores.items() if score.inputs != BERT],
        "BERT similarity": [f"val/{key}" for key in keys_from(BERT)],
        "learning rate": ["learning_rate"],
    }
