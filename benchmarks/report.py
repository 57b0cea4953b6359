"""What `python -m benchmarks` shows: a table in Markdown and an image, from bench.json."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any


def table(content: dict[str, Any]) -> str:
    """Return a row a measurement: medians, ± half the range, the ratio, the share of the limit."""
    lines = [
        "| what | ours | the baseline | times better | of the limit | notes |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        share = row["of_limit"] or 0
        limit = f"{share:.{0 if share > 0.01 else 2}%}" if share else ""
        notes = ", ".join(f"{key} {value:.3g}" for key, value in row["notes"].items())
        lines.append(
            f"| {row['name']} ({row['unit']}) | {_spread(row['ours'])} | "
            f"{_spread(row['ordinary'])}: {row['way']} | {row['ratio']:.1f} | {limit} | "
            f"{notes} |"
        )
    hardware = content["hardware"]
    lines += [
        "",
        f"Medians of {len(content['rows'][0]['ours'])}, ± half the range; "
        f"{hardware['device']}, {hardware['torch_threads']} threads, torch "
        f"{content['versions']['torch']}, commit {str(content['commit'])[:7]}. The limit is the "
        f"machine's own {content.get('limit', 'float32')} matrix product in the same run, counted "
        "in useful operations.",
    ]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    middle, half = statistics.median(values), (max(values) - min(values)) / 2
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:,.{digits}f}" + (f" ± {half:,.{digits}f}" if len(values) > 1 else "")


def plot(content: dict[str, Any], path: Path) -> None:
    """Draw how many times better ours is, a bar a row, on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = content["rows"][::-1]
    figure = Figure(figsize=(8, 0.45 * len(rows) + 1), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    bars = axis.barh(range(len(rows)), [row["ratio"] for row in rows], color="#3b6ea8")
    axis.bar_label(bars, [f" {row['ratio']:.1f}x" for row in rows], fontsize=8)
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    axis.set_xscale("log")
    axis.axvline(1, color="0.4", linewidth=1)
    axis.set_xlabel("times better than the baseline", fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)
    figure.savefig(path)
