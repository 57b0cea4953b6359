"""Constraints that every search puts on the next word."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from captioning.data.vocabulary import BOS, EOS, PAD, UNK


def constrained_log_probs(
    logits: Float[Tensor, "row vocabulary"],
    prefix: Int[Tensor, "row time"],
    max_length: int,
    min_length: int,
    no_repeat_ngram: int,
) -> Float[Tensor, "row vocabulary"]:
    """Return the log-probability in nats of each next word, -inf where it is forbidden.

    The probability of `<pad> <bos> <unk>`, and of `<eos>` first of all, goes to the other words.
    What the options forbid leaves other words' probabilities as they are: all but `<eos>` after
    `max_length` words, `<eos>` before `min_length`, and the last word of an n-gram that the prefix
    has (Paulus et al. 2017, arXiv 1705.04304; `no_repeat_ngram` is n, 0 for none). Where the latter
    two leave no word, `<eos>` is allowed: every caption ends.
    """
    time = prefix.shape[1]
    logits = logits.clone()
    logits[:, [PAD, BOS, UNK, EOS] if time == 0 else [PAD, BOS, UNK]] = -torch.inf
    log_probs = logits.float().log_softmax(-1)
    if time == max_length:
        log_probs[:, UNK + 1 :] = -torch.inf
        return log_probs
    if 0 < no_repeat_ngram <= time:
        is_repeated = find_repeats(prefix, no_repeat_ngram, logits.shape[1])
        log_probs = log_probs.masked_fill(is_repeated, -torch.inf)
    if 0 < time < min_length:
        no_word_left = log_probs[:, UNK + 1 :].isneginf().all(1)
        log_probs[:, EOS] = log_probs[:, EOS].where(no_word_left, -torch.inf)
    return log_probs


def find_repeats(
    prefix: Int[Tensor, "row time"], n: int, vocabulary_size: int
) -> Bool[Tensor, "row vocabulary"]:
    """Return which words would end an n-gram, `n` ≤ time, that the prefix already has."""
    ngrams = prefix.unfold(1, n, 1)
    last = prefix[:, None, prefix.shape[1] - n + 1 :]  # the n - 1 words before the next
    is_match = (ngrams[..., :-1] == last).all(-1)
    is_repeated = torch.zeros(len(prefix), vocabulary_size, dtype=torch.bool, device=prefix.device)
    # n-grams that do not match mark <pad>, which is never emitted anyway.
    return is_repeated.scatter(1, ngrams[..., -1].where(is_match, PAD), True)
