"""Search: a decoder's `begin` and `step` in, sentences out. Free-running, never teacher-forced.

Works on any decoder because it only reorders the rows of its state. Every sentence ends.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning.data.vocabulary import BOS, EOS, PAD, UNK

State = tuple[Tensor, ...]


@runtime_checkable
class Decoder(Protocol):
    """What search asks of a model (see models/)."""

    def begin(self, features: Tensor) -> State:
        """Return the state before the first word."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a word a row; return next-word logits and the new state."""


class Hypotheses(NamedTuple):
    """Sentences, best first.

    `tokens` ends with `<eos>`, then `<pad>`; `scores` are the log-probabilities of the
    sentences in nats, divided by length ** length_penalty.
    """

    tokens: Int[Tensor, "batch beam time"]
    scores: Float[Tensor, "batch beam"]


@torch.inference_mode()
def beam_search(
    decoder: Decoder,
    features: Float[Tensor, "batch *region feature"],
    width: int = 5,
    length_penalty: float = 1.0,
    max_length: int = 20,
) -> Hypotheses:
    """Return the `width` most probable sentences found for each picture.

    A finished sentence keeps its place in the beam for as long as `width` others do not beat its
    log-probability; the score divides by length ** `length_penalty` (Wu et al. 2016,
    arXiv 1609.08144, eq. 14 without the constant), 0 for none. `<pad> <bos> <unk>` are never
    emitted, the first word is never `<eos>`, and word `max_length` is followed by `<eos>`.
    """
    batch = len(features)
    state = tuple(part.repeat_interleave(width, 0) for part in decoder.begin(features))
    device = features.device
    tokens = torch.full((batch, width, max_length + 1), PAD, device=device)
    last = torch.full((batch * width,), BOS, device=device)
    # Only one beam is alive at first: all start as the same sentence.
    total = torch.full((batch, width), -torch.inf, device=device)
    total[:, 0] = 0.0
    finished = torch.zeros(batch, width, dtype=torch.bool, device=device)
    lengths = torch.zeros(batch, width, device=device)
    offsets = torch.arange(batch, device=device)[:, None] * width

    for time in range(max_length + 1):
        logits, state = decoder.step(last, state)
        words = _log_probabilities(logits, first=time == 0, final=time == max_length)
        words = words.view(batch, width, -1)
        words = words.masked_fill(finished[..., None], -torch.inf)
        words[..., PAD] = words[..., PAD].masked_fill(finished, 0.0)
        vocabulary = words.shape[-1]
        total, best = (total[..., None] + words).flatten(1).topk(width)
        parent, word = best // vocabulary, best % vocabulary

        rows = (offsets + parent).flatten()
        state = tuple(part[rows] for part in state)
        tokens = tokens.gather(1, parent[..., None].expand_as(tokens))
        tokens[:, :, time] = word
        lengths = lengths.gather(1, parent) + ~finished.gather(1, parent)
        finished = finished.gather(1, parent) | (word == EOS)
        last = word.flatten()
        if finished.all():
            break

    scores = total / lengths**length_penalty
    scores, order = scores.sort(dim=1, descending=True)
    tokens = tokens.gather(1, order[..., None].expand_as(tokens))[:, :, : time + 1]
    return Hypotheses(tokens, scores)


def greedy_search(
    decoder: Decoder, features: Float[Tensor, "batch *region feature"], max_length: int = 20
) -> Hypotheses:
    """Return the sentence of the most probable next word, again and again: a beam of 1."""
    return beam_search(decoder, features, width=1, max_length=max_length)


def _log_probabilities(logits: Tensor, first: bool, final: bool) -> Tensor:
    """Mask what may not come next, so that probability goes to what may."""
    if final:
        only = torch.full_like(logits, -torch.inf)
        only[:, EOS] = logits.log_softmax(-1)[:, EOS]
        return only
    banned = [PAD, BOS, UNK, EOS] if first else [PAD, BOS, UNK]
    logits = logits.clone()
    logits[:, banned] = -torch.inf
    return logits.float().log_softmax(-1)
