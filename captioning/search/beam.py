"""Search: a decoder's `begin` and `step` in, sentences out. Free-running, never teacher-forced.

Works on any decoder because it only reorders the rows of its state. Every sentence ends.
constraints.py says which words may come; next: sample.py draws instead.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.search.constraints import constrained_log_probs
from captioning.search.diverse import best_of_groups

State = tuple[Tensor, ...]


@runtime_checkable
class Decoder(Protocol):
    """What search asks of a model (see models/)."""

    def begin(self, features: Tensor) -> State:
        """Return the state before the first word."""

    def repeat(self, state: State, times: int) -> State:
        """Return the state of `times` sentences an image."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a word a row; return next-word logits and the new state."""


class Hypotheses(NamedTuple):
    """Sentences, best first.

    `tokens` ends with `<eos>`, then `<pad>`; `scores` are what the search orders sentences by:
    their log-probabilities in nats, unless it says otherwise.
    """

    tokens: Int[Tensor, "batch beam time"]
    scores: Float[Tensor, "batch beam"]

    def best_first(self) -> Hypotheses:
        """Return the same sentences in the order of their scores; equals keep their order."""
        scores, order = self.scores.sort(dim=1, descending=True, stable=True)
        return Hypotheses(self.tokens.gather(1, order[..., None].expand_as(self.tokens)), scores)


@torch.inference_mode()
def beam_search(
    decoder: Decoder,
    features: Float[Tensor, "batch *region feature"],
    width: int = 5,
    length_penalty: float = 1.0,
    max_length: int = 20,
    min_length: int = 1,
    no_repeat_ngram: int = 0,
    groups: int = 1,
    diversity: float = 0.0,
) -> Hypotheses:
    """Return the `width` most probable sentences found for each picture.

    A finished sentence keeps its place in the beam for as long as `width` others do not beat its
    log-probability; the score divides that by length ** `length_penalty` (Wu et al. 2016,
    arXiv 1609.08144, eq. 14 without the constant), 0 for none. `<pad> <bos> <unk>` are never
    emitted; `constrained_log_probs` explains `min_length`, `max_length` and `no_repeat_ngram`. The
    beam is split into `groups`, kept apart by `diversity` nats (see `best_of_groups`) that no score
    shows; two groups may find the same sentence. With fewer than `width` sentences, the rest are
    empty and score -inf. Raises UserError where `groups` does not divide `width`.
    """
    if width % groups:
        raise UserError(f"width={width} does not split into groups={groups}; type a multiple of it")
    batch, device = len(features), features.device
    state = first = decoder.repeat(decoder.begin(features), width)
    tokens = torch.full((batch, width, max_length + 1), PAD, device=device)
    last = torch.full((batch * width,), BOS, device=device)
    # Only one beam of a group is alive at first: all start as the same sentence.
    total = torch.full((batch, width), -torch.inf, device=device)
    total[:, :: width // groups] = 0.0
    penalty = torch.zeros(batch, width, device=device)
    finished = torch.zeros(batch, width, dtype=torch.bool, device=device)
    offsets = torch.arange(batch, device=device)[:, None] * width

    for time in range(max_length + 1):
        logits, state = decoder.step(last, state)
        said = tokens[:, :, :time].flatten(0, 1)
        words = constrained_log_probs(logits, said, max_length, min_length, no_repeat_ngram)
        # No sentence is extended in more than `width` ways, and a finished one in one: by nothing.
        likely, word = words.topk(min(width, words.shape[1]))
        likely, word = (part.view(batch, width, -1) for part in (likely, word))
        likely = likely.masked_fill(finished[..., None], -torch.inf)
        likely[..., 0] = likely[..., 0].masked_fill(finished, 0.0)
        word = word.masked_fill(finished[..., None], PAD)
        candidates = total[..., None] + likely
        total, parent, word, lost = best_of_groups(candidates, word, groups, diversity)

        rows = (offsets + parent).flatten()
        # What a decoder returns unchanged is equal for all sentences of an image.
        state = tuple(
            part if part is whole else part[rows] for part, whole in zip(state, first, strict=True)
        )
        tokens = tokens.gather(1, parent[..., None].expand_as(tokens))
        tokens[:, :, time] = word
        penalty = penalty.gather(1, parent) + lost
        finished = (word == EOS) | (word == PAD)
        last = word.flatten()
        if finished.all():
            break

    none = total.isneginf()
    tokens = tokens[:, :, : time + 1].masked_fill(none[..., None], PAD)
    tokens[..., 0] = tokens[..., 0].masked_fill(none, EOS)
    lengths = (tokens != PAD).sum(-1).float()
    return Hypotheses(tokens, (total + penalty) / lengths**length_penalty).best_first()


def greedy_search(
    decoder: Decoder, features: Float[Tensor, "batch *region feature"], max_length: int = 20
) -> Hypotheses:
    """Return the sentence of the most probable next word, again and again: a beam of 1."""
    return beam_search(decoder, features, width=1, max_length=max_length)
