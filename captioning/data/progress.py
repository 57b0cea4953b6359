"""Progress bars; in a log file, where a bar cannot be drawn over, a line a minute instead."""

import sys
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

SECONDS = 60  # between two lines
LINE = "{desc}: {n_fmt} of {total_fmt} after {elapsed}, {remaining} left"


def shows_bars(stream: Any) -> bool:
    """Return whether a stream is a terminal or the output of a notebook."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")


def progress_bar(*arguments: Any, **options: Any) -> tqdm:
    """Return tqdm's bar on stderr, or what writes its lines there."""

    def write(text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    if not shows_bars(sys.stderr):
        options |= {
            "file": SimpleNamespace(write=write, flush=sys.stderr.flush),
            "bar_format": LINE,
            "mininterval": SECONDS,
            "delay": SECONDS,
            "miniters": 1,
            "position": 0,  # else, beside another bar, tqdm moves the cursor
        }
    return tqdm(*arguments, **options)
