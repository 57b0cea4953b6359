"""All scores in one table, which training, evaluation, judging, sweeps and model cards read.

To add a score, write its function in this folder and add a row here, in the place that it should
have in tables (docs/results.md has an example). Nothing reads scores by position.
"""

import difflib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from captioning import UserError
from captioning.metrics.bleu import bleu_counts, bleu_from_counts
from captioning.metrics.cider import cider_d
from captioning.metrics.image_fit import image_fit, joint_fit, reference_fit
from captioning.metrics.java import meteor, spice
from captioning.metrics.rouge import rouge_l
from captioning.metrics.semantic import bert_score, best_cosine, mean_cosine, semantic

# What a score is computed from: the arguments of its function, the first two a row per image.
WORDS = "words"  # hypotheses `[image]`, references `[image][reference]`, as text
DOCUMENTS = "documents"  # the same, and the document frequencies of all references
BERT = "BERT"  # hypotheses and references as `semantic.WeightedText`
TOKENS = "tokens"  # the same as `bert_similarity.Tokens`; only `captioning.judge` computes it
FIT = "fit"  # the same as `image_fit.FitText`, and vectors of the images; only on request
JAVA = "Java"  # as WORDS, only on request; the function returns `JavaScores`
TRUTH = "truth"  # hypotheses, image ids, and what says whether a caption is true
TRAINING = "training"  # computed by the LightningModule


def aggregate_bleu(order: int) -> Callable[..., np.ndarray]:
    """Return the function that makes BLEU of that order from summed counts."""
    return lambda counts, images: bleu_from_counts(counts)[:, order - 1]


def is_true(hypotheses: list[str], image_ids: list[str], truth: Callable[..., bool]) -> np.ndarray:
    """Return 1 for each caption that is true of its image, else 0."""
    pairs = zip(image_ids, hypotheses, strict=True)
    return np.array([float(truth(image_id, caption)) for image_id, caption in pairs])


class Score(NamedTuple):
    """A score: its name in tables, its inputs, its function, and which way is better.

    `function` returns a number per image, `[image]`, or what adds up over images, `[image k]`, of
    which `aggregate(sums, images)` makes the score of sets of images, `[set k] -> [set]`. A row
    depends on its own image (and the documents) alone, so that processes can share images.
    `rank` 1 is shown everywhere, 2 not in an epoch's line in the log, 3 in full tables only, each
    multiplied by `factor`.
    """

    label: str
    inputs: str
    function: Callable[..., Any] | None = None
    mode: str = "max"
    aggregate: Callable[..., np.ndarray] = np.divide  # the mean over images
    rank: int = 1
    factor: int = 100

    @property
    def title(self) -> str:
        """The label, with an arrow where lower is better."""
        return f"{self.label} ↓" if self.mode == "min" else self.label


TABLE = {
    "cider": Score("CIDEr-D", DOCUMENTS, cider_d),
    "bleu1": Score("BLEU-1", WORDS, bleu_counts, aggregate=aggregate_bleu(1), rank=3),
    "bleu2": Score("BLEU-2", WORDS, bleu_counts, aggregate=aggregate_bleu(2), rank=3),
    "bleu3": Score("BLEU-3", WORDS, bleu_counts, aggregate=aggregate_bleu(3), rank=3),
    "bleu4": Score("BLEU-4", WORDS, bleu_counts, aggregate=aggregate_bleu(4)),
    "rouge_l": Score("ROUGE-L", WORDS, rouge_l, rank=2),
    "meteor": Score("METEOR", JAVA, meteor, rank=2),
    "spice": Score("SPICE", JAVA, spice, rank=2),
    "semantic": Score("semantic", BERT, semantic, rank=2),
    "bert_similarity": Score("BERT similarity", BERT, mean_cosine),
    "bert_similarity_best": Score("BERT, closest", BERT, best_cosine, rank=2),
    "bert_score": Score("BERTScore", TOKENS, bert_score, rank=3),
    "image_fit": Score("image fit", FIT, image_fit, rank=2),
    "reference_fit": Score("reference fit", FIT, reference_fit, rank=2),
    "fit": Score("fit", FIT, joint_fit, rank=2),
    "true": Score("true", TRUTH, is_true),
    "bert_similarity_rescaled": Score("BERT similarity, rescaled", BERT, rank=3),
    "bert_similarity_best_rescaled": Score("BERT, closest, rescaled", BERT, rank=3),
    "distinct": Score("distinct captions", WORDS, rank=3),
    "words": Score("words per caption", WORDS, rank=3, factor=1),
    "loss": Score("loss", TRAINING, mode="min", rank=3, factor=1),
}


def keys_from(*inputs: str) -> list[str]:
    """Return the keys of the scores that are computed from one of these inputs."""
    return [key for key, score in TABLE.items() if score.inputs in inputs]


def mode_of(monitor: str) -> str:
    """Return "max" or "min", whichever is better of a logged metric such as `val/cider`."""
    if re.fullmatch(r"(train|val)/(\w+_)?loss", monitor):
        return "min"
    logged = keys_from(WORDS, DOCUMENTS, BERT, TRUTH, TRAINING)
    modes = {f"val/{key}": TABLE[key].mode for key in logged}
    modes |= {"train/loss": "min", "train/reward": "max"}
    if monitor in modes:
        return modes[monitor]
    (closest,) = difflib.get_close_matches(monitor, modes, 1, cutoff=0)
    raise UserError(f"nothing logs monitor={monitor}; did you mean {closest}?")


def factor_of(key: str) -> int:
    """Return what a score is multiplied by where it is shown: shares are quoted x100."""
    name = key.rpartition("/")[2]
    return TABLE[name].factor if name in TABLE else 100


def format_score(key: str, value: float) -> str:
    """Return a score as it is shown: x100 with a digit; loss and words as they are, with two."""
    factor = factor_of(key)
    return f"{value:.2f}" if factor == 1 else f"{factor * value:.1f}"
