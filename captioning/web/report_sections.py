"""The parts of report.html that show where scores come from: systems enter, markup leaves."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np

from captioning import UserError
from captioning.data.image_files import load_image
from captioning.data.records import Record
from captioning.evaluation.breakdowns import (
    Coverage,
    caption_lengths,
    rotate,
    scores_by_length,
    scores_by_reference_count,
    word_coverage,
)
from captioning.evaluation.scoring import Scorer, System
from captioning.metrics.score_table import TABLE
from captioning.web.markup import cards, name, table
from captioning.web.plots import (
    SERIES,
    bands_plot,
    length_plot,
    references_plot,
    shares_plot,
)

THUMBNAIL = 360  # pixels, the longest side
PICTURES = 8  # of the best and of the worst
WORDS = 120  # shown of those that are never said


def lengths(scorer: Scorer, systems: Sequence[System], legend: str) -> str:
    """Return scores against the caption's length, and which lengths there are."""
    said = [caption_lengths(system.captions) for system in systems]
    people = caption_lengths([one for some in scorer.references for one in some])
    drawn = [
        length_plot(
            TABLE[key].title,
            [
                scores_by_length(counts, system.scores.per_image[key])
                for counts, system in zip(said, systems, strict=True)
            ],
        )
        for key in ("cider", "bert_similarity")
    ]
    return legend + cards([*drawn, shares_plot("% of captions", said, people)])


def references(scorer: Scorer, systems: Sequence[System], legend: str) -> str:
    """Return scores against the number of references."""
    # From another place on for each picture, as Flickr8k has them in alphabetical order. A person
    # is the last reference.
    ordered = [rotate(some, number) for number, some in enumerate(scorer.references)]
    curves = [scores_by_reference_count(system.captions, ordered) for system in systems]
    people = None
    if scorer.rounds:
        last = [some[-1] for some in ordered]
        people = scores_by_reference_count(last, [some[:-1] for some in ordered])
    return legend + cards(
        [
            references_plot(TABLE[key].title, [one[key] for one in curves], people and people[key])
            for key in curves[0]
        ]
    )


def pictures(records: Sequence[Record], systems: Sequence[System]) -> str:
    """Return the pictures with the lowest and the highest CIDEr-D, ties by BERT similarity."""

    def mean(key: str) -> np.ndarray:
        return np.mean([system.scores.per_image[key] for system in systems], axis=0)

    order = np.lexsort((mean("bert_similarity"), mean("cider"))).tolist()
    count = min(PICTURES, len(order) // 2)
    shown = []
    for title, some in (("Best", order[::-1][:count]), ("Worst", order[:count])):
        made = "".join(_card(records[at], systems, at) for at in some)
        shown.append(f'<h3>{title}</h3><ol class="pictures">{made}</ol>')
    return "".join(shown)


def _card(record: Record, systems: Sequence[System], at: int) -> str:
    said = []
    for number, system in enumerate(systems):
        scores = system.scores.per_image
        mark = f'<i style="background: var(--series-{number % SERIES})"></i>'
        said.append(
            f'<p class="caption">{mark if len(systems) > 1 else ""}{escape(system.captions[at])}'
            f'</p><p class="by">CIDEr-D {100 * scores["cider"][at]:.0f}, '
            f"BERT similarity {100 * scores['bert_similarity'][at]:.0f}</p>"
        )
    wanted = "".join(f"<li>{escape(reference)}</li>" for reference in record.captions)
    return (
        f'<li class="card"><div class="picture">{_picture(record.path)}</div><div class="text">'
        f'{"".join(said)}<ul class="references">{wanted}</ul>'
        f'<p class="image">{escape(record.image_id)}</p></div></li>'
    )


def _picture(path: str) -> str:
    try:
        image = load_image(path)
    except UserError:
        return "the picture cannot be read"
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=78)
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{content}" alt="" loading="lazy">'


def words(scorer: Scorer, systems: Sequence[System], vocabulary: set[str], legend: str) -> str:
    """Return which of the references' words are never said, and how many are."""
    covered = [word_coverage(system.captions, scorer.references, vocabulary) for system in systems]
    rows = "".join(
        f"<tr><th>{name(system.label)}</th><td>{system.scores.corpus['words']:.1f}</td>"
        f"<td>{system.scores.corpus['distinct']:.0%}</td><td>{one.words:,}</td>"
        f"<td>{one.words / len(vocabulary):.0%}</td><td>{one.used:.0%}</td></tr>"
        for system, one in zip(systems, covered, strict=True)
    )
    names = ["", "words a caption", "captions that differ", "words ever said"]
    names += ["of the vocabulary", "of what people write"]
    return (
        f"<p>The vocabulary ({len(vocabulary):,} words) has {covered[0].known:.1%} of what people "
        f'write.</p>{table(names, f"<tbody>{rows}</tbody>")}{legend}<div class="beside">'
        f"{cards([bands_plot('% of words that are ever said', [one.bands for one in covered])])}"
        f"<div>{_never(covered, vocabulary)}</div></div>"
    )


def _never(covered: Sequence[Coverage], vocabulary: set[str]) -> str:
    by_nobody = set.intersection(*({word for word, _ in one.unused} for one in covered))
    never = [(word, count) for word, count in covered[0].unused if word in by_nobody]
    chips = "".join(
        f"<li{'' if word in vocabulary else ' class=unknown'}>{escape(word)}"
        f"<small>{count}</small></li>"
        for word, count in never[:WORDS]
    )
    return (
        f"<h3>Never said</h3><p>{len(never):,} of the words that people use, the most frequent "
        f"first, with how often they do. Dashed: not in the vocabulary, so it cannot be said.</p>"
        f'<ul class="words">{chips}</ul>'
    )
