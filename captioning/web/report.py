"""Write the files of an evaluation: scores.json, report.html, each system's captions and gallery.

The report opens from disk and holds everything that it shows, plots and thumbnails too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from captioning.evaluation import breakdowns
from captioning.evaluation.results import format_p, half_width, shown_keys
from captioning.evaluation.scoring import Scorer, System
from captioning.metrics.score_table import TABLE
from captioning.training.validation import Generated, evenly_spaced
from captioning.web.gallery import write_captions, write_gallery
from captioning.web.pages import render, thumbnail_uri
from captioning.web.plots import Line, line_plot

GALLERY_IMAGES = 1000
BEST_AND_WORST = 8  # images of each
LEVEL = 0.05  # of significance


def write_results(
    folder: Path,
    scorer: Scorer,
    systems: Sequence[System],
    vocabulary: set[str],
    content: dict[str, Any],
) -> None:
    """Write all files. `content` is that of scores.json, `vocabulary` the systems' words."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
    for system in systems:
        scores = pd.DataFrame(system.scores.per_image).to_dict("records")
        rows = [
            Generated(*row) for row in zip(scorer.records, system.captions, scores, strict=True)
        ]
        suffix = "-" + re.sub(r"[^\w.=-]+", "-", system.label) if len(systems) > 1 else ""
        write_captions(folder / f"captions{suffix}.csv", rows)
        write_gallery(
            folder / f"gallery{suffix}.html",
            f"{system.label} on {content['split']}",
            {"images": len(rows)} | system.scores.corpus,
            evenly_spaced(rows, GALLERY_IMAGES),
        )
    page = render_report(scorer, systems, vocabulary, content)
    (folder / "report.html").write_text(page, encoding="utf-8")


def render_report(
    scorer: Scorer, systems: Sequence[System], vocabulary: set[str], content: dict[str, Any]
) -> str:
    """Return the report as HTML."""
    coverages = [
        breakdowns.word_coverage(system.captions, scorer.references, vocabulary)
        for system in systems
    ]
    return render(
        "report.html",
        title=f"{', '.join(system.label for system in systems)} on {content['split']}",
        facts=_facts(content),
        content=content,
        content_json=json.dumps(content, indent=2, ensure_ascii=False),
        systems=systems,
        keys=shown_keys(content["rows"][0]),
        half_width=half_width,
        format_p=format_p,
        LEVEL=LEVEL,
        has_human=bool(scorer.rounds),
        length_plots=_length_plots(scorer, systems),
        reference_plots=_reference_plots(scorer, systems),
        records=scorer.records,
        best_and_worst=_best_and_worst(systems),
        thumbnail_uri=thumbnail_uri,
        vocabulary=vocabulary,
        coverages=coverages,
        band_plot=_band_plot(coverages),
        unused_words=_unused_words(coverages),
    )


def _facts(content: dict[str, Any]) -> list[str]:
    """Return what is evaluated and how, in a few words each."""
    search = dict(content["search"])
    steps = [search.pop("_target_").rpartition(".")[2]]
    steps += [f"{key} {value}" for key, value in search.items() if not isinstance(value, dict)]
    if content["rerank"]:
        steps.append(content["rerank"]["_target_"].rpartition(".")[2])
    return [
        f"{content['pictures']:,} images",
        ", ".join(steps),
        f"{content['seconds']:.0f} s on {content['hardware']['device']}",
        content["started"].replace("T", " ")[:16],
        f"commit {(content['commit'] or 'none')[:10]}{' and changes' * content['dirty']}",
    ]


def _length_plots(scorer: Scorer, systems: Sequence[System]) -> list[str]:
    """Draw mean scores by the length of the caption, and the share of captions of each length."""
    lengths = [breakdowns.caption_lengths(system.captions) for system in systems]
    references = [caption for captions in scorer.references for caption in captions]
    human = breakdowns.caption_lengths(references)
    plots = []
    for key in ("cider", "bert_similarity"):
        groups = [
            breakdowns.scores_by_length(counts, system.scores.per_image[key])
            for counts, system in zip(lengths, systems, strict=True)
        ]
        lines = [Line(one.lengths, 100 * one.means, 196 * one.errors) for one in groups]
        plots.append(line_plot(TABLE[key].title, "words in the caption", lines, from_zero=False))
    # A single rambling caption would stretch the axis.
    longest = max(sorted(counts)[-1 - len(counts) // 200] for counts in [human, *lengths])
    x = range(longest + 2)
    human_shares, *shares = (
        Line(x, [100 * (counts == length).mean() for length in x]) for counts in [human, *lengths]
    )
    title = "% of captions"
    plots.append(line_plot(title, "words in the caption", shares, human_shares, steps=True))
    return plots


def _reference_plots(scorer: Scorer, systems: Sequence[System]) -> list[str]:
    """Draw scores against 1, 2, … references; the human caption is the last reference."""
    # Another reference first for each image, as Flickr8k has them in alphabetical order.
    references = [
        breakdowns.rotate(captions, number) for number, captions in enumerate(scorer.references)
    ]
    curves = [
        breakdowns.scores_by_reference_count(system.captions, references) for system in systems
    ]
    human = None
    if scorer.rounds:
        last, others = [row[-1] for row in references], [row[:-1] for row in references]
        human = breakdowns.scores_by_reference_count(last, others)

    return [
        line_plot(
            TABLE[key].title,
            "references an image",
            [_curve(curve[key]) for curve in curves],
            _curve(human[key]) if human else None,
        )
        for key in curves[0]
    ]


def _curve(scores: Sequence[float]) -> Line:
    return Line(range(1, len(scores) + 1), 100 * np.array(scores))


def _best_and_worst(systems: Sequence[System]) -> dict[str, list[int]]:
    """Return the images of the highest and the lowest mean CIDEr-D, ties by BERT similarity."""
    cider, similarity = (
        np.mean([system.scores.per_image[key] for system in systems], axis=0)
        for key in ("cider", "bert_similarity")
    )
    order = np.lexsort((similarity, cider)).tolist()
    count = min(BEST_AND_WORST, len(order) // 2)
    return {"Best": order[::-1][:count], "Worst": order[:count]}


def _band_plot(coverages: Sequence[breakdowns.Coverage]) -> str:
    """Draw the share of words that are used at least once, by how frequent they are."""
    lines = [
        Line(range(len(one.bands)), [100 * share for share in one.bands.values()])
        for one in coverages
    ]
    return line_plot(
        "% of words that are used at least once",
        "times in the references, from … on",
        lines,
        tick_labels=list(map(str, coverages[0].bands)),
    )


def _unused_words(coverages: Sequence[breakdowns.Coverage]) -> list[tuple[str, int]]:
    """Return the references' words that no system uses, the most frequent first, with counts."""
    words = set.intersection(*({word for word, _ in one.unused} for one in coverages))
    return [(word, count) for word, count in coverages[0].unused if word in words]
