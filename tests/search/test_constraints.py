"""Constraints against brute force: they forbid sentences and change nothing else."""

import pytest
import torch
from tiny import decoder, every_sentence, features, log_probability, sentence

from captioning.data.vocabulary import EOS, PAD, UNK
from captioning.search.beam import beam_search
from captioning.search.constraints import constrained_log_probs, repeats
from captioning.search.sample import sample

LENGTH = 4


def allowed(words, min_length, no_repeat_ngram):
    n = no_repeat_ngram
    ngrams = [words[at : at + n] for at in range(len(words) - n + 1)] if n else []
    return len(words) >= min_length and len(set(ngrams)) == len(ngrams)


@pytest.mark.parametrize(
    ("min_length", "no_repeat_ngram"), [(2, 0), (4, 0), (9, 0), (1, 1), (1, 2), (2, 1), (3, 2)]
)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_as_wide_as_the_space_ranks_all_allowed_sentences(
    min_length, no_repeat_ngram, length_penalty
):
    model, rows = decoder(), features()
    found = beam_search(model, rows, 130, length_penalty, LENGTH, min_length, no_repeat_ngram)
    for at, row in enumerate(rows):
        scores = {
            s: log_probability(model, row, s) / len(s) ** length_penalty
            for s in every_sentence(LENGTH)
            if allowed(s[:-1], min(min_length, LENGTH), no_repeat_ngram)
        }
        real = found.scores[at].isfinite()
        assert {sentence(tokens) for tokens in found.tokens[at, real]} == set(scores)
        assert sentence(found.tokens[at, 0]) == max(scores, key=scores.get)
        expected = torch.tensor(sorted(scores.values(), reverse=True))
        torch.testing.assert_close(found.scores[at, real], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_repeats_are_the_words_that_end_an_ngram_again(n):
    torch.manual_seed(0)
    words = torch.randint(4, 7, (40, 9))
    for row, mask in zip(words.tolist(), repeats(words, n, 7), strict=True):
        seen = {tuple(row[at : at + n]) for at in range(len(row) - n + 1)}
        last = row[len(row) - n + 1 :]
        for word in range(4, 7):
            assert bool(mask[word]) == ((*last, word) in seen)


def test_where_no_word_is_left_the_sentence_ends():
    model, rows = decoder(), features()
    beams = beam_search(model, rows, 3, min_length=5, no_repeat_ngram=1)
    drawn = sample(model, rows, 3, min_length=5, no_repeat_ngram=1)
    for tokens in torch.cat([*beams.tokens, *drawn.tokens]):
        assert len(sentence(tokens)) == 4  # each of the three words once


def test_after_the_last_word_the_end_keeps_its_probability():
    logits, words = torch.randn(2, 7), torch.tensor([[4, 5], [6, 6]])
    free = constrained_log_probs(logits, words, 9, 1, 0)
    last = constrained_log_probs(logits, words, 2, 1, 0)
    assert torch.equal(last[:, EOS], free[:, EOS])
    assert last[:, [at for at in range(7) if at != EOS]].isneginf().all()


def test_what_may_come_keeps_its_probability():
    logits = torch.randn(1, 7)
    words = torch.tensor([[4, 5, 4]])
    free = constrained_log_probs(logits, words, 9, 1, 0)
    bound = constrained_log_probs(logits, words, 9, 5, 2)
    assert free[0, [PAD, UNK]].isneginf().all()
    torch.testing.assert_close(free.exp().sum(), torch.tensor(1.0))
    assert bound[0, [EOS, 5]].isneginf().all()
    assert torch.equal(bound[0, [4, 6]], free[0, [4, 6]])


@pytest.mark.parametrize("groups", [1, 3])
def test_a_batch_gives_what_each_picture_gives_alone(groups):
    model, rows = decoder(), features()
    options = {"width": 6, "max_length": 8, "min_length": 3, "no_repeat_ngram": 2}
    options |= {"groups": groups, "diversity": 0.5}
    together = beam_search(model, rows, **options)
    for at, row in enumerate(rows):
        alone = beam_search(model, row[None], **options)
        time = alone.tokens.shape[-1]
        assert torch.equal(together.tokens[at, :, :time], alone.tokens[0])
        torch.testing.assert_close(together.scores[at], alone.scores[0])
