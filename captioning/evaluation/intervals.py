"""The paired bootstrap: confidence intervals of scores, and p-values of differences.

Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation". It measures the
noise of which images were scored, not that of the training's seed.
"""

import numpy as np
from jaxtyping import Float

from captioning.metrics.compute import Statistics, aggregate_scores

Samples = Float[np.ndarray, " sample"]
LEVEL = 0.95  # of confidence


def resample(images: int, samples: int = 5000, seed: int = 0) -> Float[np.ndarray, "sample image"]:
    """Return how often each resample draws each image; equal for all systems, to pair them."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), samples).astype(float)


def resampled_scores(
    draws: Float[np.ndarray, "sample image"], statistics: Statistics
) -> dict[str, Samples]:
    """Return the corpus scores of each resample; CIDEr-D by all images' document frequencies."""
    sums = {function: draws @ rows for function, rows in statistics.items()}
    return aggregate_scores(sums, draws.sum(1))


def interval(sampled: Samples) -> tuple[float, float]:
    """Return the 95 % percentile interval of a score, or of a difference."""
    low, high = np.quantile(sampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def p_value(differences: Samples) -> float:
    """Return the two-sided p-value of no difference, from the resampled differences."""
    # Less than 1e-6 is none: BLEU-4 of no shared run of four words is tiny, and not 0.
    contrary = min((differences <= 1e-6).sum(), (differences >= -1e-6).sum())
    return float(min(1.0, 2 * (contrary + 1) / (len(differences) + 1)))
