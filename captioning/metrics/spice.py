"""SPICE: captions in, the share of objects, attributes and relations that agree out, by Java.

Anderson et al. 2016, "SPICE: Semantic Propositional Image Caption Evaluation"; their own program.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captioning import UserError
from captioning.metrics.java import java, java_version, program_folder
from captioning.metrics.ngrams import Scores, tokenized

COMMAND = ["-Xmx8G", "-jar", "spice-1.0.jar"]
CORENLP = "stanford-corenlp-3.6.0"


def spice(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], timeout: int = 3600
) -> Scores:
    """Return SPICE's F from 0 to 1: `corpus` is the mean of `per_image`, which is `[image]`.

    It runs on Java 8 only, with CoreNLP 3.6.0 (384 MB) in place. Raises UserError as `meteor` does,
    and where one of the two is not there.
    """
    images = tokenized(hypotheses, references)
    folder = program_folder("SPICE", "spice")
    if (version := java_version()) != 8:
        raise UserError(
            f"SPICE runs on Java 8 only, and `java` is version {version}: put the bin folder of a "
            "Java 8 first on the PATH, or leave SPICE out"
        )
    for name in (f"{CORENLP}.jar", f"{CORENLP}-models.jar"):
        if not (folder / "lib" / name).is_file():
            raise UserError(
                f"SPICE needs {name} in {folder / 'lib'}: take it from Stanford's CoreNLP 3.6.0 "
                "(stanford-corenlp-full-2015-12-09.zip, 384 MB), or leave SPICE out"
            )
    asked = [
        {"image_id": at, "test": " ".join(one), "refs": list(map(" ".join, others))}
        for at, (one, others) in enumerate(images)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch, "given.json"), Path(scratch, "found.json")
        given.write_text(json.dumps(asked), "utf-8")
        arguments = [*COMMAND, str(given), "-out", str(found), "-silent"]
        with java("SPICE", arguments, folder, timeout) as (process, _):
            process.stdout.read()
            answers = {one["image_id"]: one["scores"] for one in json.loads(found.read_text())}
            scores = np.array([float(answers[at]["All"]["f"]) for at in range(len(images))])
    return Scores(float(scores.mean()), scores)
