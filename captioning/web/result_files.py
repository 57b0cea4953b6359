"""What an evaluation leaves: scores.json, report.html, and the captions and gallery of each system.

Next: page.py, which writes the report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captioning.data.records import Record
from captioning.evaluation.scoring import Scorer, System
from captioning.training.validation import Generated, evenly_spaced
from captioning.web.gallery import write_captions, write_gallery
from captioning.web.report import write_page

PICTURES = 1000  # of a gallery


def write_folder(
    folder: Path,
    scorer: Scorer,
    systems: Sequence[System],
    vocabulary: set[str],
    content: dict[str, Any],
) -> None:
    """Write all files; `content` is that of scores.json, `vocabulary` what the systems can say."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
    for system in systems:
        rows = generated(scorer.records, system)
        suffix = "-" + re.sub(r"[^\w.=-]+", "-", system.label) if len(systems) > 1 else ""
        write_captions(folder / f"captions{suffix}.csv", rows)
        summary = {"images": len(rows)} | system.scores.corpus
        title = f"{system.label} on {content['split']}"
        shown = evenly_spaced(rows, PICTURES)
        write_gallery(folder / f"gallery{suffix}.html", title, summary, shown)
    title = f"{', '.join(system.label for system in systems)} on {content['split']}"
    write_page(folder / "report.html", title, scorer, systems, vocabulary, content)


def generated(records: Sequence[Record], system: System) -> list[Generated]:
    """Return the system's captions as the gallery takes them."""
    scores = system.scores.per_image
    return [
        Generated(record, caption, {key: float(values[at]) for key, values in scores.items()})
        for at, (record, caption) in enumerate(zip(records, system.captions, strict=True))
    ]
