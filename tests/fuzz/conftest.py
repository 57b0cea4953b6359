"""Thousands of damaged inputs a reader: each ends well or in a UserError, soon, in little memory.

FUZZ_INPUTS=100000 tries so many of each reader's; FUZZ_SEED=7 tries others.
"""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from mutations import mutated
from tallies import inputs_tried

from captioning import UserError

SECONDS = 20  # for one input


class Hang(BaseException):
    """An input took too long; not an Exception, which a reader may catch."""


def _megabytes(kind):
    return int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


@pytest.fixture
def fuzz():
    """Return a function that tries `read` on damaged `seeds`; `megabytes` bound its memory."""

    def raise_hang(*_):
        raise Hang

    def run(name, seeds, read, inputs, change=mutated, megabytes=256):
        inputs = int(os.environ.get("FUZZ_INPUTS", inputs))
        rng = random.Random(f"{name}/{os.environ.get('FUZZ_SEED', 0)}")
        signal.signal(signal.SIGALRM, raise_hang)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        resident, start, refused = _megabytes("VmRSS"), time.monotonic(), 0
        for number in range(inputs):
            is_seed = number < len(seeds)
            data = seeds[number] if is_seed else change(rng.choice(seeds), seeds, rng)
            signal.alarm(SECONDS)
            try:
                read(data)
            except UserError as error:
                assert number, f"{name}: the first seed is sound, and yet: {error}"
                refused += 1
            except BaseException as error:
                raise AssertionError(f"{name}: input {number}, {data[:300]!r}") from error
            finally:
                signal.alarm(0)
        growth, seconds = _megabytes("VmHWM") - resident, time.monotonic() - start
        inputs_tried[name] = (
            f"{inputs:,} inputs, {refused:,} refused, {seconds:.0f} s, {growth:.0f} MB"
        )
        assert growth < megabytes

    return run
