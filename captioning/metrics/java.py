"""METEOR and SPICE, by their authors' own Java programs, run as coco-caption does.

Denkowski and Lavie 2014, "Meteor Universal"; Anderson et al. 2016, "SPICE: Semantic Propositional
Image Caption Evaluation". What nltk calls METEOR is another algorithm and gives other numbers.
The programs come with pycocoevalcap (the extra `java`); nothing here downloads.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Timer
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from captioning import UserError
from captioning.metrics.ngrams import tokenize_captions

METEOR = ["-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", "meteor-1.5.jar"]
METEOR += ["-", "-", "-stdio", "-l", "en", "-norm"]
SPICE = ["-Xmx8G", "-jar", "spice-1.0.jar"]
SPICE_NEEDS = (
    "; SPICE runs on Java 8 only (put its bin folder first on the PATH), and needs "
    "stanford-corenlp-3.6.0.jar and stanford-corenlp-3.6.0-models.jar in {}: take them from "
    "Stanford's CoreNLP 3.6.0 (stanford-corenlp-full-2015-12-09.zip, 384 MB), or leave SPICE out"
)


class JavaScores(NamedTuple):
    """The score of the corpus, which need not be the mean over images, and of each image."""

    corpus: float
    per_image: Float[np.ndarray, " image"]


def meteor(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], timeout: int = 600
) -> JavaScores:
    """Return METEOR 1.5, 0 to 1; that of the corpus adds up the counts of all images.

    Raises UserError as `tokenize_captions`, and where Java or the extra is missing, or the program
    fails or takes more than `timeout` seconds.
    """
    # Tokenized, a caption holds no newline and no "|||", which would end its field early.
    images = [
        " ||| ".join(["SCORE", *(" ".join(words) for words in (*others, hypothesis))])
        for hypothesis, others in tokenize_captions(hypotheses, references)
    ]
    with run_java("METEOR", METEOR, find_program("METEOR"), timeout) as process:

        def send(line: str) -> str:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        first = send(" ||| ".join(["EVAL", *map(send, images)]))
        scores = [float(line) for line in (first, *(process.stdout.readline() for _ in images))]
    return JavaScores(scores[-1], np.array(scores[:-1]))


def spice(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], timeout: int = 3600
) -> JavaScores:
    """Return SPICE's F-score, 0 to 1; that of the corpus is the mean over images.

    Raises UserError as `meteor`. It needs Java 8 and CoreNLP 3.6.0, and fails with any other.
    """
    images = tokenize_captions(hypotheses, references)
    folder = find_program("SPICE")
    content = [
        {"image_id": at, "test": " ".join(words), "refs": list(map(" ".join, others))}
        for at, (words, others) in enumerate(images)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        captions, results = Path(scratch, "captions.json"), Path(scratch, "results.json")
        captions.write_text(json.dumps(content), "utf-8")
        arguments = [*SPICE, str(captions), "-out", str(results), "-silent"]
        hint = SPICE_NEEDS.format(folder / "lib")
        with run_java("SPICE", arguments, folder, timeout, hint) as process:
            process.stdout.read()
            rows = {row["image_id"]: row["scores"] for row in json.loads(results.read_text())}
            scores = np.array([float(rows[at]["All"]["f"]) for at in range(len(images))])
    return JavaScores(float(scores.mean()), scores)


def find_program(name: str) -> Path:
    """Return its folder in pycocoevalcap. Raises UserError where that is not installed."""
    spec = find_spec("pycocoevalcap")
    if spec is None:
        raise UserError(
            f"{name} comes with pycocoevalcap, which is not installed; "
            f"type `pip install 'captioning[java]'` or leave {name} out"
        )
    return Path(next(iter(spec.submodule_search_locations)), name.lower())


@contextmanager
def run_java(
    name: str, arguments: list[str], folder: Path, timeout: int, hint: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run Java in a process group of its own, which is killed when the block or the time ends.

    Raises UserError, with the `hint`, for errors in the block, as they come from a Java that died
    or gave answers that cannot be read.
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
        timed_out = Event()
        timer = Timer(timeout, lambda: (timed_out.set(), _kill_group(process)))
        timer.start()
        try:
            yield process
        except (OSError, ValueError, KeyError):
            if timed_out.is_set():
                raise UserError(
                    f"{name} had not answered after {timeout} seconds and was stopped; "
                    "give it more time or leave this score out"
                ) from None
            messages.seek(0)
            raise UserError(f"{name} failed: {messages.read().strip()[-500:]}{hint}") from None
        finally:
            timer.cancel()
            _kill_group(process)
            with suppress(OSError):  # what was not written before it died
                process.stdin.close()
            process.stdout.close()
            process.wait()


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
