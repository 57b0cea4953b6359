"""Many pictures: captions of each captioner leave as a table that grows, at last with its CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import torch

from captioning import UserError
from captioning.captioner import Captioner
from captioning.web.thumbnails import THUMBNAIL, data_uri, open_picture

CHUNK = 16


def table(paths: Sequence[str], captioners: Mapping[str, Captioner]) -> Iterator[str]:
    """Caption many pictures; return the table so far, at last with its CSV."""
    rows: list[list[str]] = []
    shown: list[str] = []
    failed: list[str] = []
    for start in range(0, len(paths), CHUNK):
        names, thumbnails, inputs = [], [], {label: [] for label in captioners}
        for path in paths[start : start + CHUNK]:
            try:
                picture = open_picture(path)
            except UserError as error:
                failed.append(str(error))
                continue
            names.append(Path(path).name)
            thumbnails.append(data_uri(picture, THUMBNAIL))
            for label, one in captioners.items():
                inputs[label].append(one.encoder.preprocess(picture))
        if names:
            said = [
                one.captions_of(torch.stack(inputs[label])) for label, one in captioners.items()
            ]
            rows += [list(row) for row in zip(names, *said, strict=True)]
            shown += thumbnails
        done = min(start + CHUNK, len(paths))
        yield _table(rows, shown, failed, list(captioners), done, len(paths))


def problem(message: str) -> str:
    """Return a sentence that says what went wrong."""
    return f'<p class="problem" role="alert">{escape(message)}</p>'


def _table(
    rows: Sequence[Sequence[str]],
    thumbnails: Sequence[str],
    failed: Sequence[str],
    labels: Sequence[str],
    done: int,
    total: int,
) -> str:
    columns = ["image", *(labels if len(labels) > 1 else ["caption"])]
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f'<tr><td><div><img src="{thumbnail}" alt=""><span>{escape(row[0])}</span></div></td>'
        f"{''.join(f'<td>{escape(text)}</td>' for text in row[1:])}</tr>"
        for thumbnail, row in zip(thumbnails, rows, strict=True)
    )
    if done < total:
        status = f'<progress max="{total}" value="{done}"></progress> {done} of {total} pictures'
    else:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        data = base64.b64encode(file.getvalue().encode()).decode()
        link = (
            f'<a download="captions.csv" href="data:text/csv;base64,{data}">Save captions.csv</a>'
        )
        status = f"<span>{len(rows)} of {total} pictures captioned</span>{link if rows else ''}"
    problems = "".join(map(problem, failed))
    return (
        f'<div class="many"><div class="status">{status}</div>{problems}'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div></div>"
    )
