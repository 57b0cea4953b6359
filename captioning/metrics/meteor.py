"""METEOR 1.5: captions in, matches of words, stems, synonyms and paraphrases out, by Java.

Denkowski and Lavie 2014, "Meteor Universal", in their own program, called as coco-caption does.
What nltk calls METEOR is another algorithm and gives other numbers.
"""

from collections.abc import Sequence

import numpy as np

from captioning.metrics.java import java, program_folder
from captioning.metrics.ngrams import Scores, tokenized

COMMAND = ["-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", "meteor-1.5.jar"]
COMMAND += ["-", "-", "-stdio", "-l", "en", "-norm"]


def meteor(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], timeout: int = 600
) -> Scores:
    """Return METEOR from 0 to 1: `corpus` is one number, `per_image` is `[image]`.

    The corpus value adds up the counts of all images: it is not the mean of `per_image`. `timeout`
    is in seconds. Raises UserError as `tokenized` does, where Java or the extra is missing, and
    where the program fails or is too slow.
    """
    # Tokenized, a caption holds no newline and no "|||", which would end its field early.
    images = [
        " ||| ".join(["SCORE", *(" ".join(words) for words in (*others, one))])
        for one, others in tokenized(hypotheses, references)
    ]
    folder = program_folder("METEOR", "meteor")
    with java("METEOR", COMMAND, folder, timeout) as (process, _):

        def answer(line: str) -> str:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        first = answer(" ||| ".join(["EVAL", *map(answer, images)]))
        scores = [float(line) for line in (first, *(process.stdout.readline() for _ in images))]
    return Scores(scores[-1], np.array(scores[:-1]))
