"""Constraints that every search puts on the next word."""

import torch
from jaxtyping import Float, Int
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

    The probability of `<pad> <bos> <unk>`, and of `<eos>` as the first word, goes to the others.
    The options leave other words' probabilities as they are. They forbid all but `<eos>` after
    `max_length` words, `<eos>` before `min_length`, and the last word of an n-gram of the prefix
    (Paulus et al. 2017, arXiv 1705.04304; 0 for none). Where no word is left, `<eos>` is allowed.
    """
    time = prefix.shape[1]
    logits = logits.clone()
    logits[:, [PAD, BOS, UNK, EOS] if time == 0 else [PAD, BOS, UNK]] = -torch.inf
    log_probs = logits.float().log_softmax(-1)
    if time == max_length:
        log_probs[:, UNK + 1 :] = -torch.inf
        return log_probs
    if 0 < no_repeat_ngram <= time:
        ngrams = prefix.unfold(1, no_repeat_ngram, 1)
        last_words = prefix[:, None, time - no_repeat_ngram + 1 :]
        is_match = (ngrams[..., :-1] == last_words).all(-1)
        # n-grams that do not match forbid <pad>, which never follows anyway.
        log_probs = log_probs.scatter(1, ngrams[..., -1].where(is_match, PAD), -torch.inf)
    if 0 < time < min_length:
        no_word_left = log_probs[:, UNK + 1 :].isneginf().all(1)
        log_probs[:, EOS] = log_probs[:, EOS].where(no_word_left, -torch.inf)
    return log_probs
