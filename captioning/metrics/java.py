"""METEOR and SPICE, by their authors' own Java programs, run as coco-caption does.

Denkowski and Lavie 2014, "Meteor Universal"; Anderson et al. 2016, "SPICE: Semantic Propositional
Image Caption Evaluation". What nltk calls METEOR is another algorithm and gives other numbers.
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
from threading import Timer
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
    "stanford-corenlp-3.6.0.jar and stanford-corenlp-3.6.0-models.jar, from "
    "stanford-corenlp-full-2015-12-09.zip, in its lib folder"
)


class JavaScores(NamedTuple):
    """The score of the corpus, which need not be the mean over images, and of each image."""

    corpus: float
    per_image: Float[np.ndarray, " image"]


def meteor(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], timeout: int = 600
) -> JavaScores:
    """Return METEOR 1.5, 0 to 1; that of the corpus adds up the counts of all images.

    Raises UserError if Java or the extra `java` is missing, or the program fails or takes more
    than `timeout` seconds.
    """
    # Tokenized, a caption holds no newline and no "|||", which would end its field early.
    images = [
        " ||| ".join(["SCORE", *(" ".join(words) for words in (*others, hypothesis))])
        for hypothesis, others in tokenize_captions(hypotheses, references)
    ]
    with run_java("METEOR", METEOR, timeout) as process:

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

    Raises UserError as `meteor`.
    """
    content = [
        {"image_id": at, "test": " ".join(words), "refs": list(map(" ".join, others))}
        for at, (words, others) in enumerate(tokenize_captions(hypotheses, references))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        captions, results = Path(scratch, "captions.json"), Path(scratch, "results.json")
        captions.write_text(json.dumps(content), "utf-8")
        arguments = [*SPICE, str(captions), "-out", str(results), "-silent"]
        with run_java("SPICE", arguments, timeout, SPICE_NEEDS) as process:
            process.stdout.read()
            rows = {row["image_id"]: row["scores"] for row in json.loads(results.read_text())}
            scores = np.array([float(rows[at]["All"]["f"]) for at in range(len(content))])
    return JavaScores(float(scores.mean()), scores)


@contextmanager
def run_java(
    name: str, arguments: list[str], timeout: int, hint: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run a program of pycocoevalcap in a process group of its own.

    The group is killed when the block or the time ends. Raises UserError if the block finds no
    answer that it can read.
    """
    package = find_spec("pycocoevalcap")
    if package is None:
        raise UserError(f"{name} comes with an extra; type `pip install 'captioning[java]'`")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as messages:
        try:
            process = subprocess.Popen(  # noqa: S603, arguments are ours
                ["java", *arguments],  # noqa: S607, the user's PATH decides
                cwd=Path(*package.submodule_search_locations, name.lower()),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                encoding="utf-8",
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(
                f"{name} needs Java, and `java` does not start ({error.strerror}): install one "
                "(Debian: apt-get install default-jre-headless)"
            ) from None
        timer = Timer(timeout, _kill_group, [process])
        timer.start()
        try:
            yield process
        except (OSError, ValueError, KeyError):
            messages.seek(0)
            why = messages.read().strip()[-500:] or f"no answer, in {timeout} seconds at most"
            raise UserError(f"{name} failed: {why}{hint}") from None
        finally:
            timer.cancel()
            _kill_group(process)
            process.communicate()


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
