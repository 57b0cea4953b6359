"""What the log says of an epoch: a line of metrics, and a table of sample captions.

Metrics and `Generated` rows enter; text leaves.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from captioning.metrics.score_table import TABLE
from captioning.training.validation import Generated


def epoch_line(epoch: int, metrics: Mapping[str, float]) -> str:
    """Return one line on an epoch: the losses in training / validation, and the main scores."""
    losses = [metrics[key] for key in ("train/loss", "val/loss") if key in metrics]
    parts = ["loss " + " / ".join(f"{loss:.2f}" for loss in losses)] if losses else []
    if "train/reward" in metrics:
        parts.insert(0, f"reward {metrics['train/reward']:.2f}")
    for key, score in TABLE.items():
        if score.rank == 1 and f"val/{key}" in metrics:
            rescaled = metrics.get(f"val/{key}_rescaled")
            more = "" if rescaled is None else f" ({rescaled:.2f} rescaled)"
            parts.append(f"{key} {metrics[f'val/{key}']:.2f}{more}")
    return f"epoch {epoch}: " + ", ".join(parts)


def sample_table(samples: Sequence[Generated], markdown: bool = False) -> str:
    """Return a table of images, their captions and one reference of each, as text or Markdown."""
    rows = [("image", "caption", "a reference")]
    for record, caption, _ in samples:
        rows.append((record.image_id, caption, next(iter(record.captions), "")))
    if markdown:
        rows.insert(1, ("---",) * 3)
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    cells = [[textwrap.shorten(cell, 60, placeholder=" …") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
