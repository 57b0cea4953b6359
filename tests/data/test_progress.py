"""A bar in a terminal and in a notebook, lines in a log file."""

import io
import sys

import pytest
from tqdm import tqdm

from captioning.data import progress
from captioning.data.progress import progress_bar

TERMINAL = type("Terminal", (io.StringIO,), {"isatty": lambda _: True})
NOTEBOOK = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})


def drawn(monkeypatch, stream, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in progress_bar(range(5), "encoding", **options):
        pass
    return stream.getvalue()


@pytest.mark.parametrize("kind", [TERMINAL, NOTEBOOK])
def test_a_bar_is_drawn_where_it_is_looked_at(monkeypatch, kind):
    assert drawn(monkeypatch, kind()).count("\r") > 1


@pytest.mark.parametrize("leave", [True, False])
def test_a_log_file_gets_whole_lines(monkeypatch, leave):
    assert drawn(monkeypatch, io.StringIO(), leave=leave) == ""  # it took less than a minute
    monkeypatch.setattr(progress, "SECONDS", 1e-9)
    text = drawn(monkeypatch, io.StringIO(), leave=leave)
    assert text.count("\n") >= 5 and not {"\r", "\x1b"} & set(text)
    assert text.startswith("encoding: 1 of 5 after 00:00, 00:00 left\n")


def test_a_log_file_gets_whole_lines_beside_another_bar(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 1e-9)
    with tqdm(range(5), file=io.StringIO()):
        assert "\x1b" not in drawn(monkeypatch, io.StringIO())
