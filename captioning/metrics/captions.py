"""All word-overlap scores of a set of captions: hypotheses and references in, named numbers out.

Tokenized and computed as coco-caption does, without Java; the two that need it are apart. Next:
callbacks/ logs them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from captioning.metrics.bleu import bleu_counts, bleu_of
from captioning.metrics.cider import Documents, cider_d
from captioning.metrics.meteor import meteor
from captioning.metrics.rouge import rouge_l
from captioning.metrics.scores import tokenized
from captioning.metrics.spice import spice

WITH_JAVA = {"meteor": meteor, "spice": spice}  # only where they are asked for


class CaptionScores(NamedTuple):
    """Scores by name: of the corpus, and of each image where a score has such a value.

    `bleu_counts` is what the corpus's BLEU adds up; the other corpus scores are means over images.
    """

    corpus: dict[str, float]
    per_image: dict[str, Float[np.ndarray, " image"]]
    bleu_counts: Float[np.ndarray, "image 10"]


def caption_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Return the scores of one caption an image against the references of that image.

    `bleu1` to `bleu4` and `rouge_l` run from 0 to 1, `cider` (CIDEr-D) from 0 to 10. `distinct`
    is the share of captions left when repeated ones count once; `words` is their mean length.
    Raises UserError as `tokenized` and `cider_d` do.
    """
    documents = Documents.of(references)
    return corpus_scores(hypotheses, references, image_scores(hypotheses, references, documents))


def image_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], documents: Documents
) -> Float[np.ndarray, "image 12"]:
    """Return what `corpus_scores` folds, a row an image: BLEU's 10 counts, ROUGE-L, CIDEr-D.

    A row depends on its own image and `documents` alone, so processes can share the images.
    """
    columns = (
        bleu_counts(hypotheses, references),
        rouge_l(hypotheses, references).per_image,
        cider_d(hypotheses, references, documents).per_image,
    )
    return np.column_stack(columns)


def corpus_scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    rows: Float[np.ndarray, "image 12"],
) -> CaptionScores:
    """Fold the rows of all images into the scores of the corpus."""
    captions = [hypothesis for hypothesis, _ in tokenized(hypotheses, references)]
    counts, subsequence, consensus = rows[:, :10], rows[:, 10], rows[:, 11]
    orders = bleu_of(counts.sum(0, keepdims=True))[0]
    corpus = {f"bleu{n}": float(score) for n, score in enumerate(orders, 1)} | {
        "rouge_l": float(subsequence.mean()),
        "cider": float(consensus.mean()),
        "distinct": len(set(captions)) / len(captions),
        "words": sum(map(len, captions)) / len(captions),
    }
    per_image = {"bleu4": bleu_of(counts)[:, 3], "rouge_l": subsequence, "cider": consensus}
    return CaptionScores(corpus, per_image, counts)
