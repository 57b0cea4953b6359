"""The tables of report.html: rows of results.py enter, markup leaves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from captioning.evaluation.results import format_p, half_width, shown_keys
from captioning.metrics.score_table import TABLE
from captioning.web.markup import name, table

LEVEL = 0.05


def files(systems: Sequence[dict[str, Any]]) -> str:
    """Return which checkpoint is whose; "" where there is one system."""
    names = [
        f"<dt>{escape(one['label'])}</dt><dd>{escape(one['checkpoints'][0]['path'])}</dd>"
        for one in systems
        if len(one["checkpoints"]) == 1
    ]
    return f'<dl class="files">{"".join(names)}</dl>' if len(systems) > 1 else ""


def scores(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of all scores: against all references, and beside people."""
    keys = shown_keys(rows[0])
    groups = []
    for held_out in (False, True):
        group = [row for row in rows if row["held_out"] is held_out]
        if group:
            people = group[-1] if held_out else None
            head = f"against {group[0]['references']} references"
            if held_out:
                head += ", the one left out in turn being what people say"
            lines = [f'<tr><th colspan="{len(keys) + 1}"><span>{head}</span></th></tr>']
            lines += [_scores_row(row, keys, people) for row in group]
            groups.append(f'<tbody class="group">{"".join(lines)}</tbody>')
    return table(["", *(TABLE[key].title for key in keys)], "".join(groups))


def _scores_row(row: dict[str, Any], keys: Sequence[str], people: dict[str, Any] | None) -> str:
    cells = []
    for key in keys:
        if key not in row["scores"]:
            cells.append("<td></td>")
            continue
        small = f"± {half_width(row, key):.1f}"
        reached = people["scores"].get(key) if people and row is not people else None
        if reached:
            small += f"</small><small>{row['scores'][key] / reached:.0%} of people"
        value = f"{TABLE[key].factor * row['scores'][key]:.1f}"
        cells.append(f"<td><b>{value}</b><small>{small}</small></td>")
    return f"<tr><th>{name(row['system'])}</th>{''.join(cells)}</tr>"


def differences(pairs: Sequence[dict[str, Any]]) -> str:
    """Return a table of the differences between systems; "" where there is one system."""
    if not pairs:
        return ""
    keys = [key for key in TABLE if key in pairs[0]["scores"]]
    lines = []
    for pair in pairs:
        cells = []
        for key in keys:
            found, factor = pair["scores"][key], TABLE[key].factor
            low, high = (factor * bound for bound in found["interval"])
            noise = ' class="noise"' if found["p"] >= LEVEL else ""
            value = f"{factor * found['difference']:+.1f}"
            value = value if noise else f"<b>{value}</b>"
            small = (f"{low:+.1f} to {high:+.1f}", format_p(found["p"]))
            small = "".join(f"<small>{escape(text)}</small>" for text in small)
            cells.append(f"<td{noise}>{value}{small}</td>")
        who = f"{name(pair['first'])} <small>minus</small> {name(pair['second'])}"
        lines.append(f"<tr><th>{who}</th>{''.join(cells)}</tr>")
    rows = table(["", *(TABLE[key].title for key in keys)], f"<tbody>{''.join(lines)}</tbody>")
    return (
        "<h2>Who is better, and is it noise?</h2>"
        "<p>Differences on the same pictures, their 95&nbsp;% "
        f"interval, and the p-value of no difference. Pale: p ≥ {LEVEL}, noise could do that. "
        "The noise is that of the choice of pictures; another seed of the training adds its own. "
        f"{_many(len(pairs) * len(keys))}</p>{rows}"
    )


def _many(values: int) -> str:
    if values < 1 / LEVEL:
        return ""
    return (
        f"Of {values} comparisons without a difference, {values * LEVEL:.0f} or so look like one."
    )
