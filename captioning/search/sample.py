"""Sampling: captions drawn from a decoder's distribution, by temperature and nucleus."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.search.beam import Hypotheses
from captioning.search.constraints import constrained_log_probs


@torch.inference_mode()
def sample(
    decoder: nn.Module,
    features: Float[Tensor, "batch *region feature"],
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_length: int = 20,
    min_length: int = 1,
    no_repeat_ngram: int = 0,
    seed: int = 0,
    share_draws: bool = False,
) -> Hypotheses:
    """Draw `samples` captions of each image, with replacement; most probable first.

    `scores` are the model's log-probabilities, whatever `temperature` and `top_p` are. An image's
    draws depend on `seed` and its place in the batch; with `share_draws` all images draw as the
    first, so that an image's captions do not depend on the batch. Raises UserError for a
    temperature or top_p out of range.
    """
    if not (temperature > 0 and 0 < top_p <= 1):
        raise UserError(
            f"temperature={temperature}, top_p={top_p}: both are above 0, top_p at most 1"
        )
    rows, device = len(features) * samples, features.device
    # One number per word, drawn on the CPU and up front: neither device nor batch size matters.
    generator = torch.Generator().manual_seed(seed)
    draws = samples if share_draws else rows
    uniform = torch.rand(draws, max_length + 1, generator=generator).to(device)
    uniform = uniform.repeat(rows // draws, 1)
    state = decoder.repeat(decoder.begin(features), samples)
    tokens = torch.full((rows, max_length + 1), PAD, device=device)
    word = torch.full((rows,), BOS, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    total = torch.zeros(rows, device=device)

    for time in range(max_length + 1):
        logits, state = decoder.step(word, state)
        prefix = tokens[:, :time]
        log_probs = constrained_log_probs(logits, prefix, max_length, min_length, no_repeat_ngram)
        word = draw(log_probs, uniform[:, time], temperature, top_p)
        total += log_probs.gather(1, word[:, None])[:, 0].masked_fill(finished, 0.0)
        word = word.masked_fill(finished, PAD)
        tokens[:, time] = word
        finished |= word == EOS
        if finished.all():
            break

    tokens = tokens[:, : time + 1].unflatten(0, (-1, samples))
    return Hypotheses(tokens, total.unflatten(0, (-1, samples))).best_first()


def draw(
    log_probs: Float[Tensor, "row vocabulary"],
    uniform: Float[Tensor, " row"],
    temperature: float,
    top_p: float,
) -> Int[Tensor, " row"]:
    """Draw a word a row by inverting its cumulative distribution at `uniform`, in [0, 1)."""
    probs = (log_probs / temperature).softmax(-1)
    if top_p < 1:
        probs = nucleus(probs, top_p)
    cumulative = probs.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # The first word past the target. By rounding there may be none: then the first of all.
    past = cumulative.where(cumulative > target, cumulative + 2)
    return past.masked_fill(probs == 0, torch.inf).argmin(-1)


def nucleus(
    probs: Float[Tensor, "row vocabulary"], top_p: float
) -> Float[Tensor, "row vocabulary"]:
    """Set all to 0 but the fewest words whose probability adds up to `top_p`.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", arXiv 1904.09751.
    """
    ordered, words = probs.sort(dim=-1, descending=True)
    is_outside = ordered.cumsum(-1) - ordered >= top_p
    return probs.masked_fill(is_outside.scatter(1, words, is_outside), 0.0)
