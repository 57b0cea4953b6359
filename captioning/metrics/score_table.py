"""The scores, in one table by name: training, evaluation, judging, sweeps and model cards read it.

To add a score, write its function in a file of this folder and a row here, in the place that it
should have in tables (docs/results.md has an example). Nothing reads scores by position.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from captioning import UserError
from captioning.metrics.bleu import bleu_counts, bleu_of
from captioning.metrics.cider import cider_d
from captioning.metrics.meteor import meteor
from captioning.metrics.rouge import rouge_l
from captioning.metrics.semantic import bert_score, best_cosine, mean_cosine, semantic
from captioning.metrics.spice import spice

# What a score runs from: the arguments of its function, a row an image in the first two.
WORDS = "words"  # hypotheses `[image]`, references `[image][reference]`, as text
DOCUMENTS = "documents"  # the same, and the document frequencies of all references
BERT = "BERT"  # hypotheses and references as `semantic.Weighed`
TOKENS = "tokens"  # the same as `bert_similarity.Tokens`; `captioning.judge` alone computes it
JAVA = "Java"  # as WORDS, only where it is asked for; the function returns `Scores`
TRUTH = "truth"  # hypotheses, image ids, and what says whether a caption is true
TRAINING = "training"  # computed by the LightningModule


def mean(sums: np.ndarray, images: int | np.ndarray) -> np.ndarray:
    """Return the mean over images."""
    return sums / images


def bleu_fold(order: int) -> Callable[..., np.ndarray]:
    """Return the fold of BLEU's counts into BLEU of that order."""
    return lambda counts, images: bleu_of(counts)[:, order - 1]


def is_true(hypotheses: list[str], image_ids: list[str], truth: Callable[..., bool]) -> np.ndarray:
    """Return 1 for each caption that is true of its image, else 0."""
    pairs = zip(image_ids, hypotheses, strict=True)
    return np.array([float(truth(image_id, caption)) for image_id, caption in pairs])


class Score(NamedTuple):
    """A score: what tables call it, what it runs from, its function, and which way is better.

    `function` returns a number an image, `[image]` (or `Scores` with it), or what `fold` makes
    scores of, `[image k]`. A row depends on its own image (and the documents) alone, so that
    processes can share images. None stands for a score of the whole corpus. `fold(sums, images)`
    turns sums of rows over images into the score of those images, `[set k] -> [set]`. `rank` 1 is
    shown everywhere, 2 not in an epoch's line in the log, 3 in full tables only. Shown, a score is
    multiplied by `factor`.
    """

    label: str
    runs_from: str
    function: Callable[..., Any] | None = None
    mode: str = "max"
    fold: Callable[..., np.ndarray] = mean
    rank: int = 1
    factor: int = 100

    @property
    def title(self) -> str:
        """The label, with an arrow where lower is better."""
        return f"{self.label} ↓" if self.mode == "min" else self.label


TABLE = {
    "cider": Score("CIDEr-D", DOCUMENTS, cider_d),
    "bleu1": Score("BLEU-1", WORDS, bleu_counts, fold=bleu_fold(1), rank=3),
    "bleu2": Score("BLEU-2", WORDS, bleu_counts, fold=bleu_fold(2), rank=3),
    "bleu3": Score("BLEU-3", WORDS, bleu_counts, fold=bleu_fold(3), rank=3),
    "bleu4": Score("BLEU-4", WORDS, bleu_counts, fold=bleu_fold(4)),
    "rouge_l": Score("ROUGE-L", WORDS, rouge_l, rank=2),
    "meteor": Score("METEOR", JAVA, meteor, rank=2),
    "spice": Score("SPICE", JAVA, spice, rank=2),
    "semantic": Score("semantic", BERT, semantic, rank=2),
    "bert_similarity": Score("BERT similarity", BERT, mean_cosine),
    "bert_similarity_best": Score("BERT, closest", BERT, best_cosine, rank=2),
    "bert_score": Score("BERTScore", TOKENS, bert_score, rank=3),
    "true": Score("true", TRUTH, is_true),
    "bert_similarity_rescaled": Score("BERT similarity, rescaled", BERT, rank=3),
    "bert_similarity_best_rescaled": Score("BERT, closest, rescaled", BERT, rank=3),
    "distinct": Score("distinct captions", WORDS, rank=3),
    "words": Score("words a caption", WORDS, rank=3, factor=1),
    "loss": Score("loss", TRAINING, mode="min", rank=3, factor=1),
}


def keys_from(*sources: str) -> list[str]:
    """Return the keys of the scores that run from one of these."""
    return [key for key, score in TABLE.items() if score.runs_from in sources]


def mode_of(monitor: str) -> str:
    """Return "max" or "min", whichever is better of a logged metric such as `val/cider`.

    Raises UserError, with the closest name, for a metric that no training logs.
    """
    if re.fullmatch(r"(train|val)/(\w+_)?loss", monitor):
        return "min"
    logged = keys_from(WORDS, DOCUMENTS, BERT, TRUTH, TRAINING)
    modes = {f"val/{key}": TABLE[key].mode for key in logged}
    modes |= {"train/loss": "min", "train/reward": "max"}
    if monitor in modes:
        return modes[monitor]
    (closest,) = difflib.get_close_matches(monitor, modes, 1, cutoff=0)
    raise UserError(
        f"nothing logs monitor={monitor}; did you mean {closest}?; "
        f"it can be one of {', '.join(modes)}"
    )


def factor_of(key: str) -> int:
    """Return what a score is multiplied by where it is shown: shares are quoted x100."""
    name = key.rpartition("/")[2]
    return TABLE[name].factor if name in TABLE else 100
