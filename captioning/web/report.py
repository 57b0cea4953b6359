"""One page about an evaluation, to be looked at, mailed and kept: it opens from disk and holds all.

Scores, captions and pictures enter; report.html leaves, with plots and thumbnails inside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from captioning.evaluation.scoring import Scorer, System
from captioning.web import report_sections as sections
from captioning.web import report_tables as tables
from captioning.web.markup import legend

TEMPLATE = Path(__file__).with_suffix(".html")
STYLE = Path(__file__).with_name("style.css")  # of all pages of this stage and the next


def write_page(
    path: Path,
    title: str,
    scorer: Scorer,
    systems: Sequence[System],
    vocabulary: set[str],
    content: dict[str, Any],
) -> None:
    """Write the page. `content` is that of scores.json, `vocabulary` what the systems can say."""
    labels = [system.label for system in systems]
    lines = legend(labels, "people" if scorer.rounds else "")
    search = dict(content["search"])
    commit = (content["commit"] or "none")[:10] + (" and changes" if content["dirty"] else "")
    facts = [
        f"{len(scorer.records):,} pictures",
        f"{search.pop('_target_').rpartition('.')[2]}: "
        + ", ".join(
            f"{key} {value}" for key, value in search.items() if not isinstance(value, dict)
        ),
        f"{content['seconds']:.0f} s on {content['hardware']['device']}",
        content["started"].replace("T", " ")[:16],
        f"commit {commit}",
    ]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        style=STYLE.read_text(encoding="utf-8"),
        title=escape(title),
        facts=escape(" · ".join(facts)),
        files=tables.files(content["systems"]),
        scores=tables.scores(content["rows"]),
        differences=tables.differences(content["differences"]),
        lengths=sections.lengths(scorer, systems, lines),
        references=sections.references(scorer, systems, lines),
        pictures=sections.pictures(scorer.records, systems),
        words=sections.words(scorer, systems, vocabulary, legend(labels)),
        content=escape(json.dumps(content, indent=2, ensure_ascii=False)),
    )
    path.write_text(page, encoding="utf-8")
