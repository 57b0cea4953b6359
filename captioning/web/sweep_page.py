"""One page about a sweep, to be looked at, mailed and kept: it opens from disk and holds all.

Runs and their rows enter; the markup of summary.html leaves, with the plots inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import TABLE
from captioning.sweeps.importance import importance
from captioning.sweeps.runs import Run, finished_runs, read_runs
from captioning.sweeps.summary import (
    format_score,
    make_rows,
    rank_configs,
    ranking_score,
    score_keys,
    setting_keys,
)
from captioning.web import sweep_plots as plots
from captioning.web.markup import cards, legend, name, table
from captioning.web.plots import SERIES, svg
from captioning.web.report import STYLE

TEMPLATE = Path(__file__).with_suffix(".html")
NUMBERS = ("trained_parameters", "seconds_per_epoch")  # of run.json, drawn against the score


def write_sweep_page(folder: Path) -> None:
    """Write summary.html about the runs below a folder."""
    runs = read_runs([folder])
    with atomic_write(folder / "summary.html") as temporary:
        temporary.write_text(page_text(folder, runs, make_rows(runs)), encoding="utf-8")


def page_text(folder: Path, runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> str:
    """Return the page about the runs below a folder; `rows` are those of `make_rows`."""
    score, sign = ranking_score(rows)
    groups = [
        group
        for group in rank_configs(runs)
        if all(run.scores.get(score) is not None for run in group)
    ]
    keys = setting_keys(rows)
    labels = [config_label(row) for row in rows[:SERIES]]
    more = f"{len(rows) - SERIES} others" if len(rows) > SERIES else ""
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        style=STYLE.read_text(encoding="utf-8"),
        title=escape(folder.resolve().name),
        facts=escape(" · ".join(facts(runs))),
        same=same(runs, keys),
        about=f"Of each run's best checkpoint on the validation split, by {score}, the "
        f"{'smallest' if sign < 0 else 'largest'} first; shares times 100. With more than "
        "one seed: mean ± standard deviation.",
        score=plots.shown_name(score),
        scores=scores_table(rows) if rows else none("No job has finished yet."),
        failed=failures(folder, runs),
        legend=legend(labels, more) if len(rows) > 1 else "",
        curves=curves(groups, f"val/{score}"),
        against=against(groups, keys, score),
        parallel=parallel(groups, keys, score),
        importance=bars(groups, keys, score),
    )


def facts(runs: Sequence[Run]) -> list[str]:
    """Return what is known of all runs, in a few words each."""
    counts = Counter(run.status for run in runs)
    done = finished_runs(runs)
    devices = sorted({run.content["hardware"].get("device", "") for run in done})
    commits = sorted({str(run.content["commit"])[:10] for run in done})
    days = sorted({run.content.get("started", "")[:10] for run in done})
    told = [f"{len(runs)} jobs: " + ", ".join(f"{count} {key}" for key, count in counts.items())]
    minutes = sum(run.content.get("seconds", 0) for run in done) / 60
    told += [f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours", *devices]
    told += [" to ".join(dict.fromkeys((days[0], days[-1])))] if days else []
    return [one for one in [*told, "commit " + ", ".join(commits)] if one]


def same(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """Return the settings that were given to all runs alike."""
    given = dict.fromkeys(key for run in runs for key in run.overrides if key not in keys)
    text = " ".join(f"{key}={runs[0].overrides.get(key)}" for key in given)
    return f"<p>In all: {escape(text)}</p>" if text else ""


def config_label(row: dict[str, Any]) -> str:
    """Return what tells a config from the others."""
    settings = [f"{plots.shown_name(key)} {value}" for key, value in row["settings"].items()]
    return ", ".join(settings) or "all"


def scores_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of configs."""
    settings, scores, lines = setting_keys(rows), score_keys(rows), []
    for rank, row in enumerate(rows):
        chip = f'<i class="chip" style="background: var(--series-{rank})"></i>'
        values = [row["settings"][key] for key in settings]
        named = ["" if value is None else str(value) for value in values] or ["all"]
        cells = [f"<th>{chip if rank < SERIES else ''}{name(named[0])}</th>"]
        cells += [f"<td>{escape(value)}</td>" for value in [*named[1:], str(len(row["seeds"]))]]
        for key in scores:
            mean, _, spread = format_score(row["scores"].get(key), key).partition(" ± ")
            small = f"<small>± {spread}</small>" if spread else ""
            cells.append(f"<td><b>{mean}</b>{small}</td>")
        pace = row["seconds_per_epoch"]
        cells.append(f"<td>{'' if pace is None else f'{pace:.1f}'}</td>")
        cells.append(f"<td>{row['trained_parameters']:,}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    names = [plots.shown_name(key) for key in (settings or [""])]
    names += ["seeds", *map(plots.shown_name, scores), "s/epoch", "parameters"]
    return table(names, f"<tbody>{''.join(lines)}</tbody>")


def failures(folder: Path, runs: Sequence[Run]) -> str:
    """Return the runs without a result and why, with their tracebacks; "" where all have one."""
    lines = []
    for run in runs:
        if run.status == "finished":
            continue
        path, more = run.folder / "traceback.txt", ""
        if path.exists():
            text = escape(path.read_text(encoding="utf-8"))
            more = f"<details><summary>traceback</summary><pre>{text}</pre></details>"
        why = f"{run.status}: {run.error}" if run.error else run.status
        where = escape(str(run.folder.relative_to(folder)))
        lines.append(f'<li class="card"><b>{where}</b><p>{escape(why)}</p>{more}</li>')
    return f'<h2>Without a result</h2><ul class="failed">{"".join(lines)}</ul>' if lines else ""


def curves(groups: plots.Groups, score: str) -> str:
    """Return the metrics by epoch, of all runs."""
    logged = {
        key
        for group in groups
        for run in group
        for row in run.content.get("history", ())
        for key in row
    }
    if all(len(run.content.get("history", ())) < 2 for group in groups for run in group):
        return none("Curves need a run of two epochs or more.")
    main = [f"val/{key}" for key, row in TABLE.items() if row.rank == 1]
    keys = dict.fromkeys([score, *main, "val/loss", "train/loss"])
    keys = [key for key in keys if key in logged]
    return cards([svg(plots.curves(groups, key), f"curves {key}") for key in keys])


def against(groups: plots.Groups, keys: Sequence[str], score: str) -> str:
    """Return the score against each setting, and against what a run costs."""
    if len(groups) < 2:
        return none("This needs two configs: nothing but the seed differs between finished runs.")
    drawn = []
    for key in [*keys, *NUMBERS]:
        values = {repr(plots.value_of(run, key)) for group in groups for run in group}
        if len(values) > 1:
            drawn.append(svg(plots.scatter(groups, key, score), f"{score} by {key}"))
    return cards(drawn)


def parallel(groups: plots.Groups, keys: Sequence[str], score: str) -> str:
    """Return all configs as lines through their settings."""
    if len(keys) < 2 or len(groups) < 2:
        return none("This needs two settings that differ, and two finished configs.")
    figure = plots.parallel(groups, keys, score)
    width = 100 * figure.get_figwidth()  # pixels at which the text has the size of the page's
    drawing = svg(figure, "parallel")
    return f'<div class="card wide"><div style="width: {width:.0f}px">{drawing}</div></div>'


def bars(groups: plots.Groups, keys: Sequence[str], score: str) -> str:
    """Return how much each setting mattered."""
    effects = importance(groups, keys, score)
    if not any(effect.key != "seed" for effect in effects):
        return none(
            "This needs four finished runs with different scores, and a setting of which a value "
            "comes twice: more seeds, or a second setting that differs."
        )
    return cards([svg(plots.bars(effects), "importance")])


def none(text: str) -> str:
    """Return what is said in the place of a plot that there is too little data for."""
    return f'<p class="none">{escape(text)}</p>'
