"""Sampling: a decoder's `begin` and `step` in, sentences drawn from its distribution out.

What people say varies as samples do; the most probable sentence is dull. Next: risk.py chooses
among samples.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.search.beam import Decoder, Hypotheses
from captioning.search.constraints import constrained_log_probs


@torch.inference_mode()
def sample(
    decoder: Decoder,
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
    """Draw `samples` sentences for each picture, with replacement; most probable first.

    `scores` are the model's log-probabilities, whatever `temperature` and `top_p` are.
    The constraints are those of `constrained_log_probs`. The same call draws the same sentences, on
    any device up to rounding. An image's draws depend on `seed` and on its place in the batch, the
    first being what it draws alone; with `share_draws` all images draw as the first, so that
    a batch changes no image's sentences. Raises UserError for a temperature or top_p out of range.
    """
    if temperature <= 0:
        raise UserError(
            f"temperature={temperature} must be above 0; type search=greedy for the limit"
        )
    if not 0 < top_p <= 1:
        raise UserError(f"top_p={top_p} must be above 0 and at most 1; type search.top_p=0.9")
    rows, device = len(features) * samples, features.device
    # One number a word, drawn on the CPU and up front: neither device nor batch size matters.
    generator = torch.Generator().manual_seed(seed)
    drawn = samples if share_draws else rows
    uniform = torch.rand(drawn, max_length + 1, generator=generator).to(device)
    uniform = uniform.repeat(rows // drawn, 1)
    state = decoder.repeat(decoder.begin(features), samples)
    tokens = torch.full((rows, max_length + 1), PAD, device=device)
    word = torch.full((rows,), BOS, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    total = torch.zeros(rows, device=device)

    for time in range(max_length + 1):
        logits, state = decoder.step(word, state)
        following = constrained_log_probs(
            logits, tokens[:, :time], max_length, min_length, no_repeat_ngram
        )
        word = draw(following, uniform[:, time], temperature, top_p)
        log_probability = following.gather(1, word[:, None])[:, 0]
        total += log_probability.masked_fill(finished, 0.0)
        word = word.masked_fill(finished, PAD)
        tokens[:, time] = word
        finished |= word == EOS
        if finished.all():
            break

    tokens = tokens[:, : time + 1].unflatten(0, (-1, samples))
    return Hypotheses(tokens, total.unflatten(0, (-1, samples))).best_first()


def draw(
    following: Float[Tensor, "row vocabulary"],
    uniform: Float[Tensor, " row"],
    temperature: float,
    top_p: float,
) -> Int[Tensor, " row"]:
    """Return a word a row; its log-probability counts divided by `temperature`.

    `uniform` are random numbers in [0, 1); `nucleus` explains `top_p`.
    """
    probability = (following / temperature).softmax(-1)
    if top_p < 1:
        probability = nucleus(probability, top_p)
    reached = probability.cumsum(-1)
    target = uniform[:, None] * reached[:, -1:]
    # The first word that reaches past the target. By rounding there may be none: then the first.
    past = reached.where(reached > target, reached + 2)
    return past.masked_fill(probability == 0, torch.inf).argmin(-1)


def nucleus(
    probability: Float[Tensor, "row vocabulary"], top_p: float
) -> Float[Tensor, "row vocabulary"]:
    """Return 0 for all but the fewest words whose probability reaches `top_p`.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", arXiv 1904.09751.
    """
    ordered, words = probability.sort(dim=-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probability.masked_fill(outside.scatter(1, words, outside), 0.0)
