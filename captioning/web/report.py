"""Write the files of an evaluation: scores.json, report.html, each system's captions and gallery.

The report holds everything that it shows, plots and thumbnails too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from captioning.evaluation import breakdowns
from captioning.evaluation.results import format_p, half_width, shown_keys
from captioning.evaluation.scoring import Scorer, System
from captioning.metrics.score_table import TABLE
from captioning.output.card import describe_search
from captioning.training.validation import Generated, evenly_spaced
from captioning.web.gallery import write_captions, write_gallery
from captioning.web.pages import write_page
from captioning.web.plots import Line, line_plot

GALLERY_IMAGES = 1000
BEST_AND_WORST = 8  # images of each


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
    write_report(folder / "report.html", scorer, systems, vocabulary, content)


def write_report(
    path: Path,
    scorer: Scorer,
    systems: Sequence[System],
    vocabulary: set[str],
    content: dict[str, Any],
) -> None:
    """Write the report, an HTML page."""
    coverages = [
        breakdowns.word_coverage(system.captions, scorer.references, vocabulary)
        for system in systems
    ]
    unused = set.intersection(*(set(coverage.unused) for coverage in coverages))
    write_page(
        path,
        "report.html",
        title=f"{', '.join(system.label for system in systems)} on {content['split']}",
        facts=_facts(content),
        content=content,
        content_json=json.dumps(content, indent=2, ensure_ascii=False),
        systems=systems,
        keys=shown_keys(content["rows"][0]),
        half_width=half_width,
        format_p=format_p,
        length_plots=_length_plots(scorer, systems),
        reference_plots=_reference_plots(scorer, systems),
        scorer=scorer,
        best_and_worst=_best_and_worst(systems),
        vocabulary=vocabulary,
        coverages=coverages,
        band_plot=line_plot(
            "% of words that are used at least once",
            "times in the references, from … on",
            [_percent_line(list(coverage.bands.values())) for coverage in coverages],
            tick_labels=list(map(str, coverages[0].bands)),
        ),
        reliability_plot=_reliability_plot(content["confidence"]),
        unused_words=[word for word in coverages[0].unused if word in unused],
    )


def _facts(content: dict[str, Any]) -> list[str]:
    """Return what is evaluated and how, in a few words each."""
    return [
        f"{content['pictures']:,} images",
        describe_search(content)["text"],
        f"{content['seconds']:.0f} s on {content['hardware']['device']}",
        content["started"].replace("T", " ")[:16],
        f"commit {(content['commit'] or 'none')[:10]}{' and changes' if content['dirty'] else ''}",
    ]


def _length_plots(scorer: Scorer, systems: Sequence[System]) -> list[str]:
    """Draw mean scores by the length of the caption, and the share of captions of each length."""
    label = "words in the caption"
    lengths = [breakdowns.caption_lengths(system.captions) for system in systems]
    human = breakdowns.caption_lengths(list(chain.from_iterable(scorer.references)))
    plots = []
    for key in ("cider", "bert_similarity"):
        groups = [
            breakdowns.scores_by_length(counts, system.scores.per_image[key])
            for counts, system in zip(lengths, systems, strict=True)
        ]
        lines = [Line(group.lengths, 100 * group.means, 196 * group.errors) for group in groups]
        plots.append(line_plot(TABLE[key].title, label, lines, from_zero=False))
    # A few rambling captions would stretch the axis.
    longest = max(sorted(counts)[-1 - len(counts) // 50] for counts in [human, *lengths])
    human_shares, *shares = (
        _percent_line([(counts == length).mean() for length in range(longest + 2)])
        for counts in [human, *lengths]
    )
    plots.append(line_plot("% of captions", label, shares, human_shares, steps=True))
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
            "references per image",
            [_percent_line(curve[key], first=1) for curve in curves],
            _percent_line(human[key], first=1) if human else None,
        )
        for key in curves[0]
    ]


def _reliability_plot(confidences: Sequence[dict[str, Any]]) -> str:
    """Draw how close captions are over their confidence; dashed: as it should be."""
    lines = [Line(*(100 * np.array(each["bins"]).T)) for each in confidences]
    if not lines:
        return ""
    ends = [0, max(float(np.max(line.x)) for line in lines)]
    title = "% as close to the references as one of them"
    return line_plot(title, "confidence, %", lines, Line(ends, ends))


def _percent_line(shares: Sequence[float], first: int = 0) -> Line:
    """Return a line through shares in percent, `first` being the x of the first."""
    return Line(range(first, first + len(shares)), 100 * np.array(shares))


def _best_and_worst(systems: Sequence[System]) -> dict[str, list[int]]:
    """Return the images of the highest and the lowest mean CIDEr-D, ties by BERT similarity."""
    cider, similarity = (
        np.mean([system.scores.per_image[key] for system in systems], axis=0)
        for key in ("cider", "bert_similarity")
    )
    order = np.lexsort((similarity, cider)).tolist()
    count = min(BEST_AND_WORST, len(order) // 2)
    return {"Best": order[::-1][:count], "Worst": order[:count]}
