"""Constraints against brute force: they forbid captions and change nothing else."""

from functools import cache

import pytest
import torch
from tiny import decoder, every_caption, features, log_probability, read_caption

from captioning.search.beam import beam_search
from captioning.search.sample import sample

LENGTH = 4


def is_allowed(words, min_length, n):
    ngrams = [words[at : at + n] for at in range(len(words) - n + 1)] if n else []
    return len(words) >= min_length and len(set(ngrams)) == len(ngrams)


@cache
def all_log_probs():
    """Return the log-probability of each caption for each image."""
    captions, model = list(every_caption(LENGTH)), decoder()
    return [{each: log_probability(model, row, each) for each in captions} for row in features()]


@pytest.mark.parametrize(
    ("min_length", "no_repeat_ngram"),
    [(1, 0), (2, 0), (4, 0), (9, 0), (1, 1), (1, 2), (1, 3), (2, 1), (3, 2)],
)
@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
def test_a_beam_as_wide_as_the_space_ranks_all_allowed_captions(
    min_length, no_repeat_ngram, length_penalty
):
    options = length_penalty, LENGTH, min_length, no_repeat_ngram
    hypotheses = beam_search(decoder(), features(), 130, *options)
    for log_probs, tokens, scores in zip(all_log_probs(), *hypotheses, strict=True):
        expected = {
            caption: log_prob / len(caption) ** length_penalty
            for caption, log_prob in log_probs.items()
            if is_allowed(caption[:-1], min(min_length, LENGTH), no_repeat_ngram)
        }
        is_real = scores.isfinite()
        assert {*map(read_caption, tokens[is_real])} == set(expected)
        assert read_caption(tokens[0]) == max(expected, key=expected.get)
        ranked = torch.tensor(sorted(expected.values(), reverse=True))
        torch.testing.assert_close(scores[is_real], ranked, atol=1e-4, rtol=0)


@pytest.mark.parametrize("search", [beam_search, sample])
def test_where_no_word_is_left_the_caption_ends(search):
    tokens = search(decoder(), features(), 3, min_length=5, no_repeat_ngram=1).tokens
    # Each of the three words once, and <eos>.
    assert {len(read_caption(row)) for row in tokens.flatten(0, 1)} == {4}
