"""Write summary.html, the page of a sweep: its table, curves, and which settings mattered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from captioning.data.atomic import atomic_write
from captioning.metrics.score_table import TABLE
from captioning.sweeps import summary
from captioning.sweeps.importance import importance
from captioning.sweeps.runs import Run, finished_runs, read_runs
from captioning.web import sweep_plots
from captioning.web.pages import render
from captioning.web.plots import COLOURS, svg
from captioning.web.sweep_plots import Groups, short_name, value_of

NUMBERS = ("trained_parameters", "seconds_per_epoch")  # of run.json, drawn against the score


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
    page = render(
        "sweep.html",
        title=folder.resolve().name,
        facts=_facts(runs),
        shared_settings=" ".join(f"{key}={runs[0].overrides.get(key)}" for key in shared),
        rows=rows,
        settings=keys,
        scores=summary.score_keys(rows),
        score=score,
        sign=sign,
        format_score=summary.format_score,
        short_name=short_name,
        labels=[_config_label(row["settings"]) for row in rows[: len(COLOURS)]],
        folder=folder,
        failures=[(run, _traceback(run)) for run in runs if run.status != "finished"],
        curves=_curves(groups, f"val/{score}"),
        scatters=_scatters(groups, keys, score),
        parallel=_parallel(groups, keys, score),
        bars=_bars(groups, keys, score),
    )
    with atomic_write(folder / "summary.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


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


def _config_label(settings: dict[str, object]) -> str:
    return ", ".join(f"{short_name(key)} {value}" for key, value in settings.items()) or "all"


def _traceback(run: Run) -> str:
    path = run.folder / "traceback.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _curves(groups: Groups, score: str) -> list[str]:
    """Draw the main metrics by epoch, of all runs; none for runs of a single epoch."""
    histories = [run.content.get("history", ()) for group in groups for run in group]
    if all(len(history) < 2 for history in histories):
        return []
    logged = {key for history in histories for row in history for key in row}
    main = [f"val/{key}" for key, row in TABLE.items() if row.rank == 1]
    keys = dict.fromkeys([score, *main, "val/loss", "train/loss"])
    return [svg(sweep_plots.curves(groups, key), f"curves {key}") for key in keys if key in logged]


def _scatters(groups: Groups, keys: Sequence[str], score: str) -> list[str]:
    """Draw the score against each setting, and against what a run costs."""
    if len(groups) < 2:
        return []
    differing = [
        key
        for key in [*keys, *NUMBERS]
        if len({repr(value_of(run, key)) for group in groups for run in group}) > 1
    ]
    return [svg(sweep_plots.scatter(groups, key, score), f"{score} by {key}") for key in differing]


def _parallel(groups: Groups, keys: Sequence[str], score: str) -> list[str]:
    """Draw each config as a line; none where fewer than two settings or configs differ."""
    if len(keys) < 2 or len(groups) < 2:
        return []
    return [svg(sweep_plots.parallel(groups, keys, score), "parallel")]


def _bars(groups: Groups, keys: Sequence[str], score: str) -> list[str]:
    """Draw how much each setting mattered; none where only the seeds can be judged."""
    effects = importance(groups, keys, score)
    if all(effect.key == "seed" for effect in effects):
        return []
    return [svg(sweep_plots.bars(effects), "importance")]
