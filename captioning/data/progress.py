"""Progress bars; in a log file, where a bar cannot be drawn over, a line a minute instead."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

SECONDS = 60.0  # until the first line, and between two
LINE = "{desc}: {n_fmt} of {total_fmt} after {elapsed}, {remaining} left, {rate_fmt}"


def shows_bars(stream: Any) -> bool:
    """Return whether a stream is a terminal or the output of a notebook."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")


def progress_bar(*arguments: Any, **options: Any) -> tqdm:
    """Return tqdm's bar, on stderr."""
    if not shows_bars(sys.stderr):
        options |= {"file": _Lines(sys.stderr), "bar_format": LINE, "miniters": 1}
        options |= {"mininterval": SECONDS, "delay": SECONDS}
    return tqdm(*arguments, **options)


class _Lines:
    """A file for tqdm that makes a line of each state of a bar."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> None:
        if text.strip():  # else it moves the cursor
            self.stream.write(text.strip() + "\n")

    def flush(self) -> None:
        self.stream.flush()
