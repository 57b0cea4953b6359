"""Java programs as metrics: run in one process with a time limit that leaves no child behind.

meteor.py and spice.py call it. Their programs come with pycocoevalcap (the extra `java`); nothing
here downloads, and nothing else in the project needs Java.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Timer
from typing import IO

from captioning import UserError


def java_version() -> int:
    """Return the major version of the `java` on the PATH. Raises UserError where none works."""
    with java("Java", ["-version"], Path(), timeout=60) as (process, messages):
        process.wait()
        messages.seek(0)
        major, minor = re.search(r'version "(\d+)(?:\.(\d+))?', messages.read()).groups()
    return int(minor if major == "1" else major)  # 1.8.0_392 is Java 8


def program_folder(name: str, program: str) -> Path:
    """Return where pycocoevalcap has a program. Raises UserError where it is not installed."""
    spec = find_spec("pycocoevalcap")
    if spec is None:
        raise UserError(
            f"{name} comes with pycocoevalcap, which is not installed; "
            f"type `pip install 'captioning[java]'` or leave {name} out"
        )
    return Path(next(iter(spec.submodule_search_locations)), program)


@contextmanager
def java(
    name: str, arguments: list[str], folder: Path, timeout: int
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run Java in a process group of its own, which is killed when the block or the time ends.

    Yields the process and what it writes to stderr. Raises UserError in place of whatever goes
    wrong in the block when Java dies or answers nonsense.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as messages:
        try:
            process = subprocess.Popen(  # noqa: S603, arguments are ours
                ["java", *arguments],  # noqa: S607, the user's PATH decides
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                encoding="utf-8",
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(
                f"{name} needs Java, and `java` does not start ({error.strerror}): install one "
                "(Debian: apt-get install default-jre-headless), or leave this score out"
            ) from None
        late = Event()
        timer = Timer(timeout, lambda: (late.set(), _kill(process)))
        timer.start()
        try:
            yield process, messages
        except (OSError, ValueError, KeyError, AttributeError):
            if late.is_set():
                raise UserError(
                    f"{name} had not answered after {timeout} seconds and was stopped; "
                    "give it more time or leave this score out"
                ) from None
            messages.seek(0)
            raise UserError(f"{name} failed: {messages.read().strip()[-500:]}") from None
        finally:
            timer.cancel()
            _kill(process)
            with suppress(OSError):  # what was not written before it died
                process.stdin.close()
            process.stdout.close()
            process.wait()


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
