"""Write captions as they are made: into a table (.csv, .jsonl), or into a .txt beside each image.

What is written already is not made again, so that a job that was killed goes on where it stopped.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from captioning import UserError
from captioning.data.atomic import atomic_write_text
from captioning.data.caption_formats import text_path


class Row(NamedTuple):
    """An image's path, its caption, and the caption's scores by name."""

    path: str
    caption: str
    scores: dict[str, float]


class CaptionTable:
    """`captions.csv` (image, caption), or JSON lines or `metadata.csv` (file_name, text).

    The latter two are what Hugging Face's imagefolder reads: images below the table's folder are
    named from there. Each score in `scores` is another column. `captions.csv.job.json` beside it
    holds `job`, what decides the captions; a table of another job, or from elsewhere, is refused
    unless `overwrite`.
    """

    def __init__(
        self, path: str, job: dict[str, Any], overwrite: bool = False, scores: Sequence[str] = ()
    ):
        self.name = path
        self.clashes: list[str] = []
        self.path = Path(path)
        self.json_lines = self.path.suffix == ".jsonl"
        self.is_imagefolder = self.json_lines or self.path.name == "metadata.csv"
        names = ("file_name", "text") if self.is_imagefolder else ("image", "caption")
        self.columns = (*names, *scores)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Never removed: a process that had opened it before would hold a lock without a name.
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"out={path}: another process is writing it; let that finish") from None
        try:
            self._file = self._open(job, overwrite)
        except BaseException:
            self._lock.release()
            raise

    def missing(self, images: Sequence[str]) -> list[str]:
        """Return the images that have no row yet."""
        return [path for path in images if self._image_name(path) not in self.done]

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, unbuffered: they stay when this process is killed."""
        text = "".join(
            self._line([self._image_name(path), caption, *map(format_number, scores.values())])
            for path, caption, scores in rows
        )
        remaining = memoryview(_encode(text))
        while remaining:  # a disk that fills up takes a part, and raises at the next write
            remaining = remaining[self._file.write(remaining) :]

    def close(self) -> None:
        """Close the table and unlock it."""
        self._file.close()
        self._lock.release()

    def _open(self, job: dict[str, Any], overwrite: bool) -> io.RawIOBase:
        """Open the table to be appended to; `done` is set to the names of its images."""
        job_file = Path(f"{self.path}.job.json")
        self.done: set[str] = set()
        header = b"" if self.json_lines else _encode(self._line(self.columns))
        is_new = overwrite or not self.path.exists()
        if is_new or header.startswith(self.path.read_bytes()):  # killed before the first row
            atomic_write_text(job_file, json.dumps(job, indent=1) + "\n")
            file = self.path.open("wb", buffering=0)
            file.write(header)
            return file
        options = "type another out=, or overwrite=true to lose what is in it"
        try:
            old_job = json.loads(job_file.read_text(encoding="utf-8"))
            changed = [key for key in job if old_job.get(key) != job[key]]
            if not changed:
                self.done = self._read_images()
        except (FileNotFoundError, ValueError, KeyError, csv.Error):
            why = "is not from this command, or has been changed"
            raise UserError(f"out={self.path} {why}; {options}") from None
        if changed:
            what = "captions of another checkpoint"
            if changed == ["search"]:
                what = "captions of another search"
            elif {*changed} <= {"scores", "search"}:
                what = "other columns, or another confidence"
            raise UserError(f"out={self.path} has {what}; {options}")
        return self.path.open("ab", buffering=0)

    def _read_images(self) -> set[str]:
        """Cut off the row that a kill has torn, and return the names of the others' images.

        Raises csv.Error where more than that row is incomplete.
        """
        with self.path.open("rb") as file:
            lines = [line for line in file if line.endswith(b"\n")]
        texts = [line.decode("utf-8") for line in lines]
        if self.json_lines:
            rows, complete = [json.loads(text) for text in texts], len(texts)
        else:
            reader = csv.DictReader(texts, strict=True)
            rows, complete = [], 1  # the header
            try:
                for row in reader:  # a line within quotes is part of a row
                    rows.append(row)
                    complete = reader.line_num
            except csv.Error:  # it ends within quotes, or was changed
                if len(texts) - complete > 1:
                    raise
        names = {row[self.columns[0]] for row in rows}
        os.truncate(self.path, sum(map(len, lines[:complete])))
        return names

    def _image_name(self, path: str) -> str:
        """Return the name of an image in the table, bytes that are not UTF-8 as `\\udcff`."""
        if self.is_imagefolder:
            relative = os.path.relpath(os.path.abspath(path), os.path.abspath(self.path.parent))
            path = path if relative.startswith("..") else relative
        return path if self.json_lines else _encode(path).decode()

    def _line(self, row: Sequence[str]) -> str:
        if self.json_lines:
            cells = [*row[:2], *map(float, row[2:])]
            return (
                json.dumps(dict(zip(self.columns, cells, strict=True)), ensure_ascii=False) + "\n"
            )
        line = io.StringIO()
        # A carriage return ends a line for a reader, but csv does not quote it by itself.
        quoting = csv.QUOTE_ALL if "\r" in "".join(row) else csv.QUOTE_MINIMAL
        csv.writer(line, lineterminator="\n", quoting=quoting).writerow(row)
        return line.getvalue()


class Sidecars:
    """`photo.txt` beside `photo.jpg`, as trainers of text-to-image models read captions.

    An existing .txt stays unless `overwrite`. `clashes` names the images without a caption, since
    their .txt would be that of another image.
    """

    def __init__(self, overwrite: bool = False):
        self.name = "sidecar"
        self.clashes: list[str] = []
        self.overwrite = overwrite

    def missing(self, images: Sequence[str]) -> list[str]:
        """Return the images whose .txt is to be written."""
        owners: dict[str, str] = {}
        for path in images:
            text = text_path(path)
            owner = owners.setdefault(text, path)
            if owner != path:
                self.clashes.append(f"{path} has no caption: {text} is that of {owner}")
        return [
            path for text, path in owners.items() if self.overwrite or not os.path.lexists(text)
        ]

    def write(self, rows: Iterable[Row]) -> None:
        """Write each caption at once or not at all; of an empty one no text stays."""
        for path, caption, _ in rows:
            text = Path(text_path(path))
            if caption:
                atomic_write_text(text, caption + "\n")
            else:
                text.unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: no file is open."""


def format_number(score: float) -> str:
    """Return a score as tables have it, with three digits."""
    return f"{score:.3f}"


def _encode(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace")
