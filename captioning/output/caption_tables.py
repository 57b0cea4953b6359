"""Captions on disk, in the forms that curators of data sets use; rows enter as they are made.

A table (.csv, .jsonl) or a .txt beside each picture. What is there already is not made again, so
a job that was killed goes on: nothing is lost, nothing is there twice.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from captioning import UserError
from captioning.data.atomic import atomic_write

Row = tuple[str, str]  # a picture's path, its caption


class Table:
    """`captions.csv` (image, caption), or JSON lines and `metadata.csv` (file_name, text).

    The latter are what Hugging Face's imagefolder reads: pictures below the table's folder are
    named from there. `captions.csv.job.json` beside it holds `job`, what the captions come from; a
    table of another job, or of nobody's, is refused unless `overwrite`.
    """

    def __init__(self, path: str, job: dict[str, Any], overwrite: bool = False):
        self.name = path
        self.clashes: list[str] = []
        self.path = Path(path)
        self.json_lines = self.path.suffix == ".jsonl"
        self.curated = self.json_lines or self.path.name == "metadata.csv"
        self.columns = ("file_name", "text") if self.curated else ("image", "caption")
        # The file stays: whoever opened it before it was removed would lock what has no name.
        self._lock = FileLock(f"{path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"out={path}: another process is writing it; let that finish") from None
        except OSError as error:
            raise UserError(f"out={path} cannot be written: {error.strerror}") from None
        try:
            self._file = self._opened(job, overwrite)
        except BaseException:
            self._lock.release()
            raise

    def todo(self, pictures: Sequence[str]) -> list[str]:
        """Return the pictures that have no row yet."""
        return [path for path in pictures if self._name(path) not in self.done]

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows; they are the system's from then on, whatever happens to this process."""
        text = "".join(self._line((self._name(path), caption)) for path, caption in rows)
        left = memoryview(_encoded(text))
        try:
            while left:  # a disk that fills up takes a part first, and says so at the next
                left = left[self._file.write(left) :]
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Let others write."""
        self._file.close()
        self._lock.release()

    def _opened(self, job: dict[str, Any], overwrite: bool) -> io.RawIOBase:
        beside = Path(f"{self.path}.job.json")
        self.done: set[str] = set()
        head = b"" if self.json_lines else _encoded(self._line(self.columns))
        if overwrite or not self.path.exists() or head.startswith(self._start(len(head))):
            with atomic_write(beside) as temporary:
                temporary.write_text(json.dumps(job, indent=1) + "\n", encoding="utf-8")
            file = self.path.open("wb", buffering=0)
            file.write(head)
            return file
        options = "type another out=, or overwrite=true to lose what is in it"
        try:
            theirs = json.loads(beside.read_text(encoding="utf-8"))
            differ = [key for key in job if theirs.get(key) != job[key]]
            if not differ:
                os.truncate(self.path, self._whole())  # a kill may have torn the last row
                self.done = self._pictures()
        except (FileNotFoundError, ValueError, KeyError, csv.Error):
            why = "is not from this command, or has been changed"
            raise UserError(f"out={self.path} {why}; {options}") from None
        if differ:
            what = "search" if differ == ["search"] else "checkpoint"
            why = f"has captions of another {what}, as {beside} says"
            raise UserError(f"out={self.path} {why}; {options}")
        return self.path.open("ab", buffering=0)

    def _pictures(self) -> set[str]:
        with self.path.open(encoding="utf-8", newline="") as text:
            rows = map(json.loads, text) if self.json_lines else csv.DictReader(text)
            return {row[self.columns[0]] for row in rows}

    def _start(self, size: int) -> bytes:
        with self.path.open("rb") as file:
            return file.read(size + 1)

    def _whole(self) -> int:
        """Return where the last complete row ends; a line within quotes is part of a CSV row.

        Raises csv.Error where more would be lost than the row that a kill tore.
        """
        with self.path.open("rb") as file:
            lines = file.readlines()
        rows = lines[:-1] if not lines[-1].endswith(b"\n") else lines
        if not self.json_lines:
            reader = csv.reader((line.decode("utf-8") for line in rows), strict=True)
            complete = 0
            try:
                for _ in reader:
                    complete = reader.line_num
            except csv.Error:  # it ends within quotes, or was changed
                if len(rows) - complete > 1:
                    raise
            rows = rows[:complete]
        return sum(map(len, rows))

    def _name(self, path: str) -> str:
        """Return how the table names a picture, a byte that is no UTF-8 as `\\udcff`."""
        if self.curated:
            inside = os.path.relpath(os.path.abspath(path), os.path.abspath(self.path.parent))
            path = path if inside.startswith("..") else inside
        return path if self.json_lines else _encoded(path).decode()

    def _line(self, row: Sequence[str]) -> str:
        if self.json_lines:
            return json.dumps(dict(zip(self.columns, row, strict=True)), ensure_ascii=False) + "\n"
        line = io.StringIO()
        # A carriage return ends a line for whoever reads it, but is not quoted by itself.
        quoting = csv.QUOTE_ALL if "\r" in row[0] else csv.QUOTE_MINIMAL
        csv.writer(line, lineterminator="\n", quoting=quoting).writerow(row)
        return line.getvalue()


class Sidecars:
    """`photo.txt` beside `photo.jpg`, as trainers of text-to-image models read captions.

    A .txt that is there stays as it is unless `overwrite`; `clashes` names the pictures that
    would share one with another picture, which have to go without.
    """

    def __init__(self, overwrite: bool = False):
        self.name = "sidecar"
        self.clashes: list[str] = []
        self.overwrite = overwrite

    def todo(self, pictures: Sequence[str]) -> list[str]:
        """Return the pictures that are to have a .txt and have none."""
        owners: dict[str, str] = {}
        for path in pictures:
            owner = owners.setdefault(_sidecar(path), path)
            if owner != path:
                self.clashes.append(f"{path} has no caption: {_sidecar(path)} is that of {owner}")
        return [
            path for text, path in owners.items() if self.overwrite or not os.path.lexists(text)
        ]

    def write(self, rows: Iterable[Row]) -> None:
        """Write each caption at once or not at all."""
        for path, caption in rows:
            text = _sidecar(path)
            try:
                with atomic_write(Path(text)) as temporary:
                    temporary.write_text(caption + "\n", encoding="utf-8")
            except OSError as error:
                raise UserError(f"{text} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is open."""


def _sidecar(path: str) -> str:
    return os.path.splitext(path)[0] + ".txt"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace")
