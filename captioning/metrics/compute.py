"""The scores of table.py computed: captions in, named numbers of images and of the corpus out.

Tokenized and computed as coco-caption does, without Java. Next: callbacks/ logs them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from captioning import UserError
from captioning.metrics.cider import Documents
from captioning.metrics.ngrams import Scores, tokenized
from captioning.metrics.score_table import DOCUMENTS, TABLE, WORDS

# What the table's functions return, by function: `[image]` or `[image k]`.
Statistics = Mapping[Callable[..., Any], np.ndarray]


class CaptionScores(NamedTuple):
    """Scores by name: of the corpus, and of each image; and the statistics they are made of."""

    corpus: dict[str, float]
    per_image: dict[str, Float[np.ndarray, " image"]]
    statistics: Statistics


def caption_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Return the scores of one caption an image against the references of that image.

    `bleu1` to `bleu4` and `rouge_l` run from 0 to 1, `cider` (CIDEr-D) from 0 to 10. Raises
    UserError as `tokenized` and `cider_d` do.
    """
    statistics = compute_statistics(text_inputs(hypotheses, references))
    corpus = corpus_scores(statistics) | caption_variety(hypotheses)
    return CaptionScores(corpus, image_scores(statistics), statistics)


def text_inputs(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: Documents | None = None,
) -> dict[str, tuple[Any, ...]]:
    """Return the inputs of the scores of words; `documents` are of the references of all images."""
    documents = documents or Documents.of(references)
    return {WORDS: (hypotheses, references), DOCUMENTS: (hypotheses, references, documents)}


def compute_statistics(inputs: Mapping[str, tuple[Any, ...]]) -> Statistics:
    """Call each function of the table whose inputs are here, once.

    Raises UserError where one returns a corpus score that no mean over images is.
    """
    statistics: dict[Callable[..., Any], np.ndarray] = {}
    for key, score in TABLE.items():
        function, arguments = score.function, inputs.get(score.runs_from)
        if not function or not arguments or function in statistics:
            continue
        rows = function(*arguments)
        if isinstance(rows, Scores):
            if not np.isclose(rows.corpus, rows.per_image.mean()):
                raise UserError(
                    f"{key}: its corpus score is not the mean over images; return what adds up "
                    "over images, and give its row in metrics/table.py a fold"
                )
            rows = rows.per_image
        statistics[function] = np.asarray(rows, dtype=float)
    return statistics


def fold_sums(sums: Statistics, images: int | np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of sets of images from the sums of their statistics."""
    return {
        key: score.fold(sums[score.function], images)
        for key, score in TABLE.items()
        if score.function in sums
    }


def image_scores(statistics: Statistics) -> dict[str, Float[np.ndarray, " image"]]:
    """Return the scores of each image that are shown beside it."""
    scores = fold_sums(statistics, 1)
    return {key: values for key, values in scores.items() if TABLE[key].rank < 3}


def corpus_scores(statistics: Statistics) -> dict[str, float]:
    """Return the scores of all images together."""
    sums = {function: rows.sum(0, keepdims=True) for function, rows in statistics.items()}
    images = len(next(iter(statistics.values())))
    return {key: float(value[0]) for key, value in fold_sums(sums, images).items()}


def caption_variety(captions: Sequence[str]) -> dict[str, float]:
    """Return `distinct`, the share left when repeated captions count once, and `words`, the mean
    length."""
    words = [one for one, _ in tokenized(captions, [[""]] * len(captions))]
    return {"distinct": len(set(words)) / len(words), "words": sum(map(len, words)) / len(words)}
