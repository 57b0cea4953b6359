"""Beam search, greedy search and diverse beam search, with any `models.decoder.Decoder`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.search.constraints import constrained_log_probs


class Hypotheses(NamedTuple):
    """Captions of each image, best first: words, `<eos>`, then `<pad>`.

    `scores` are what they are ordered by: see each search.
    """

    tokens: Int[Tensor, "batch beam time"]
    scores: Float[Tensor, "batch beam"]

    def best_first(self) -> Hypotheses:
        """Return the captions ordered by score; those of equal scores keep their order."""
        scores, order = self.scores.sort(dim=1, descending=True, stable=True)
        return Hypotheses(self.tokens.gather(1, order[..., None].expand_as(self.tokens)), scores)


@torch.inference_mode()
def beam_search(
    decoder: nn.Module,
    features: Float[Tensor, "batch *region feature"],
    width: int = 5,
    length_penalty: float = 1.0,
    max_length: int = 20,
    min_length: int = 1,
    no_repeat_ngram: int = 0,
    groups: int = 1,
    diversity: float = 0.0,
) -> Hypotheses:
    """Return the `width` most probable captions that a beam finds for each image.

    Beams are extended by log-probability until all are finished; a caption's score is its
    log-probability in nats / length ** `length_penalty`, `<eos>` included (Wu et al. 2016, arXiv
    1609.08144, eq. 14 without the constant). Where fewer than `width` captions exist, the rest are
    empty and score -inf. `constrained_log_probs` explains the lengths and `no_repeat_ngram`;
    `choose_extensions` explains `groups` and `diversity`, which no score contains.
    """
    if width % groups:
        raise UserError(f"width={width} does not split into groups={groups}; type a multiple of it")
    batch, device = len(features), features.device
    state = initial = decoder.repeat(decoder.begin(features), width)
    tokens = torch.full((batch, width, max_length + 1), PAD, device=device)
    word = torch.full((batch, width), BOS, device=device)
    # Only one beam of a group is active at first: all start with the same prefix.
    total = torch.full((batch, width), -torch.inf, device=device)
    total[:, :: width // groups] = 0.0
    diversity_penalty = torch.zeros_like(total)
    finished = torch.zeros_like(total, dtype=torch.bool)
    first_rows = torch.arange(batch, device=device)[:, None] * width

    for time in range(max_length + 1):
        logits, state = decoder.step(word.flatten(), state)
        prefix = tokens[:, :, :time].flatten(0, 1)
        log_probs = constrained_log_probs(logits, prefix, max_length, min_length, no_repeat_ngram)
        log_probs, words = topk_words(log_probs, finished)
        candidates = total[..., None] + log_probs
        total, parent, word, step_penalty = choose_extensions(candidates, words, groups, diversity)

        rows = (first_rows + parent).flatten()
        # State that the decoder returns unchanged is equal across an image's beams.
        state = tuple(
            part if part is unchanged else part[rows]
            for part, unchanged in zip(state, initial, strict=True)
        )
        tokens = tokens.gather(1, parent[..., None].expand_as(tokens))
        tokens[:, :, time] = word
        diversity_penalty = diversity_penalty.gather(1, parent) + step_penalty
        finished = (word == EOS) | (word == PAD)
        if finished.all():
            break

    is_empty = total.isneginf()
    tokens = tokens[:, :, : time + 1].masked_fill(is_empty[..., None], PAD)
    tokens[..., 0] = tokens[..., 0].masked_fill(is_empty, EOS)
    lengths = (tokens != PAD).sum(-1).float()
    return Hypotheses(tokens, (total + diversity_penalty) / lengths**length_penalty).best_first()


def greedy_search(
    decoder: nn.Module, features: Float[Tensor, "batch *region feature"], max_length: int = 20
) -> Hypotheses:
    """Return the caption of the most probable next word at each step: a beam of width 1."""
    return beam_search(decoder, features, width=1, max_length=max_length)


def topk_words(
    log_probs: Float[Tensor, "row vocabulary"], finished: Bool[Tensor, "batch beam"]
) -> tuple[Float[Tensor, "batch beam choice"], Int[Tensor, "batch beam choice"]]:
    """Return as many words for each beam as there are beams; `<pad>`, at no cost, if finished."""
    log_probs, words = log_probs.topk(min(finished.shape[1], log_probs.shape[1]))
    log_probs, words = (part.view(*finished.shape, -1) for part in (log_probs, words))
    log_probs = log_probs.masked_fill(finished[..., None], -torch.inf)
    log_probs[..., 0] = log_probs[..., 0].masked_fill(finished, 0.0)
    return log_probs, words.masked_fill(finished[..., None], PAD)


def choose_extensions(
    candidates: Float[Tensor, "batch beam choice"],
    words: Int[Tensor, "batch beam choice"],
    groups: int,
    diversity: float,
) -> tuple[Tensor, ...]:
    """Return the best one-word extensions of each group of beams, by their totals `candidates`.

    Diverse beam search with Hamming diversity (Vijayakumar et al. 2016, arXiv 1610.02424): a word
    loses `diversity` nats for each beam of an earlier group that took it in this step. The four
    tensors, `[batch beam]`, are new totals, the beams that are extended, words, and penalties.
    """
    width, choices = candidates.shape[1:]
    size = width // groups
    chosen: list[tuple[Tensor, ...]] = []
    for first in range(0, width, size):
        group = slice(first, first + size)
        penalties = torch.zeros_like(candidates[:, group])
        for total, _, word, _ in chosen:
            # Neither a finished caption nor an inactive beam takes a word.
            taken = word.masked_fill((word == PAD) | total.isneginf(), -1)
            is_taken = words[:, group, :, None] == taken[:, None, None]
            penalties = penalties + diversity * is_taken.sum(-1)
        total, best = (candidates[:, group] - penalties).flatten(1).topk(size)
        word, penalty = (x.flatten(1).gather(1, best) for x in (words[:, group], penalties))
        chosen.append((total, first + best // choices, word, penalty))
    return tuple(torch.cat(parts, 1) for parts in zip(*chosen, strict=True))
