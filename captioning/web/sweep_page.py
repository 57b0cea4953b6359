"""Write summary.html, the page of a sweep: its table, curves, and which settings mattered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from captioning.metrics.score_table import TABLE
from captioning.sweeps import summary
from captioning.sweeps.importance import importance
from captioning.sweeps.runs import Run, finished_runs, read_runs
from captioning.web.pages import write_page
from captioning.web.plots import COLOURS, svg
from captioning.web.sweep_plots import Groups, bars, curves, parallel, scatter, short_name, value_of

COSTS = ("trained_parameters", "seconds_per_epoch")  # of run.json, drawn against the score
LOSSES = ("val/loss", "train/loss")


def write_sweep_page(folder: Path) -> None:
    """Write summary.html about the runs below a folder."""
    runs = read_runs([folder])
    rows = summary.make_rows(runs)
    score, sign = summary.ranking_score(rows)
    groups = [
        group
        for group in summary.rank_configs(runs)
        if all(run.scores.get(score) is not None for run in group)
    ]
    keys = summary.setting_keys(rows)
    shared = dict.fromkeys(key for run in runs for key in run.overrides if key not in keys)
    effects = importance(groups, keys, score)
    are_seeds_only = all(effect.key == "seed" for effect in effects)
    has_parallel = len(keys) > 1 and len(groups) > 1
    write_page(
        folder / "summary.html",
        "sweep.html",
        title=folder.resolve().name,
        facts=_facts(runs),
        shared_settings=" ".join(f"{key}={runs[0].overrides.get(key)}" for key in shared),
        rows=rows,
        settings=keys,
        scores=summary.score_keys(rows),
        score=score,
        sign=sign,
        format_mean=summary.format_mean,
        short_name=short_name,
        labels=[
            ", ".join(f"{short_name(key)} {value}" for key, value in row["settings"].items())
            for row in rows[: len(COLOURS)]
        ],
        folder=folder,
        failures=[run for run in runs if run.status != "finished"],
        curves=[svg(curves(groups, key)) for key in _curve_keys(groups, f"val/{score}")],
        scatters=[svg(scatter(groups, key, score)) for key in _scatter_keys(groups, keys)],
        parallel=[svg(parallel(groups, keys, score))] if has_parallel else [],
        bars=[] if are_seeds_only else [svg(bars(effects))],
    )


def _facts(runs: Sequence[Run]) -> list[str]:
    """Return what is known of all runs, in a few words each."""
    counts = Counter(run.status for run in runs)
    done = finished_runs(runs)
    days = sorted({run.content.get("started", "")[:10] for run in done})
    commits = sorted({str(run.content["commit"])[:10] for run in done})
    minutes = sum(run.content.get("seconds", 0) for run in done) / 60
    facts = [
        f"{len(runs)} jobs: {', '.join(f'{count} {status}' for status, count in counts.items())}",
        f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours",
        *sorted({run.content["hardware"].get("device", "") for run in done}),
        " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        f"commit {', '.join(commits)}",
    ]
    return [fact for fact in facts if fact]


def _curve_keys(groups: Groups, score: str) -> list[str]:
    """Return the main metrics that runs logged by epoch; none for runs of a single epoch."""
    histories = [run.content.get("history", ()) for group in groups for run in group]
    if all(len(history) < 2 for history in histories):
        return []
    logged = {key for history in histories for row in history for key in row}
    main = [f"val/{key}" for key, row in TABLE.items() if row.rank == 1]
    return [key for key in dict.fromkeys([score, *main, *LOSSES]) if key in logged]


def _scatter_keys(groups: Groups, keys: Sequence[str]) -> list[str]:
    """Return the settings, and what a run costs, that differ between runs of several configs."""
    runs = [run for group in groups for run in group]
    return [
        key
        for key in [*keys, *COSTS]
        if len(groups) > 1 and len({repr(value_of(run, key)) for run in runs}) > 1
    ]
