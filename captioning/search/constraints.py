"""Which words may come next: a decoder's logits and the words so far in, log-probabilities out.

Every search asks here, so a sentence that one never says, none of them says.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from captioning.data.vocabulary import BOS, EOS, PAD, UNK


def constrained_log_probs(
    logits: Float[Tensor, "row vocabulary"],
    words: Int[Tensor, "row time"],
    max_length: int,
    min_length: int,
    no_repeat_ngram: int,
) -> Float[Tensor, "row vocabulary"]:
    """Return the log-probability in nats of each word after `words`, -inf where it may not come.

    `<pad> <bos> <unk>` and an `<eos>` in first place are taken out of the model: their probability
    goes to the other words. The constraints, by contrast, leave the model as it is and forbid: all
    but `<eos>` after `max_length` words, `<eos>` before `min_length`, and the last word of an
    n-gram that the sentence already has (Paulus et al. 2017, arXiv 1705.04304; `no_repeat_ngram`
    is n, 0 for none). So the best sentence is the most probable one of those allowed. Where the
    latter two leave no word, `<eos>` may come: every sentence ends.
    """
    time = words.shape[1]
    logits = logits.clone()
    logits[:, [PAD, BOS, UNK, EOS] if time == 0 else [PAD, BOS, UNK]] = -torch.inf
    following = logits.float().log_softmax(-1)
    if time == max_length:
        following[:, UNK + 1 :] = -torch.inf
        return following
    if 0 < no_repeat_ngram <= time:
        repeated = repeats(words, no_repeat_ngram, logits.shape[1])
        following = following.masked_fill(repeated, -torch.inf)
    if 0 < time < min_length:
        no_word_left = following[:, UNK + 1 :].isneginf().all(1)
        following[:, EOS] = following[:, EOS].where(no_word_left, -torch.inf)
    return following


def repeats(
    words: Int[Tensor, "row time"], n: int, vocabulary: int
) -> Bool[Tensor, "row vocabulary"]:
    """Return which words would end an n-gram, `n` ≤ time, that the row already has."""
    ngrams = words.unfold(1, n, 1)
    last = words[:, None, words.shape[1] - n + 1 :]  # the n - 1 words before the next
    again = (ngrams[..., :-1] == last).all(-1)
    repeated = torch.zeros(len(words), vocabulary, dtype=torch.bool, device=words.device)
    # n-grams that begin otherwise mark <pad>, which never comes anyway.
    return repeated.scatter(1, ngrams[..., -1].where(again, PAD), True)
