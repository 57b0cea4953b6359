"""Search against brute force, on models small enough to try every sentence."""

import pytest
import torch
from tiny import decoder, every_sentence, features, log_probability, sentence

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.search.beam import beam_search, greedy_search

LENGTH = 3


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
def test_a_beam_as_wide_as_the_space_finds_the_best_sentence(length_penalty):
    model, rows = decoder(), features()
    found = beam_search(model, rows, 60, length_penalty, max_length=LENGTH)
    for at, row in enumerate(rows):
        scores = {
            s: log_probability(model, row, s) / len(s) ** length_penalty
            for s in every_sentence(LENGTH)
        }
        best = max(scores, key=scores.get)
        assert sentence(found.tokens[at, 0]) == best
        assert float(found.scores[at, 0]) == pytest.approx(scores[best], abs=1e-4)


def test_greedy_takes_the_most_probable_next_word():
    model, rows = decoder(), features()
    tokens = greedy_search(model, rows, max_length=LENGTH).tokens[:, 0]
    for row, words in zip(rows, tokens.tolist(), strict=True):
        state, last = model.begin(row[None]), BOS
        for time, word in enumerate(words[: words.index(EOS)]):
            logits, state = model.step(torch.tensor([last]), state)
            logits[:, [PAD, BOS, UNK, *([EOS] if time == 0 else [])]] = -torch.inf
            assert word == int(logits.argmax())
            last = word


def test_a_batch_gives_what_each_picture_gives_alone():
    model, rows = decoder(), features()
    together = beam_search(model, rows, width=3, max_length=6)
    for at, row in enumerate(rows):
        alone = beam_search(model, row[None], width=3, max_length=6)
        time = alone.tokens.shape[-1]
        assert torch.equal(together.tokens[at, :, :time], alone.tokens[0])
        torch.testing.assert_close(together.scores[at], alone.scores[0])


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_every_sentence_has_a_word_and_ends_once(width, seed):
    tokens = beam_search(decoder(seed), features(), width=width, max_length=6).tokens
    assert all(len(sentence(row)) <= 7 for row in tokens.flatten(0, 1))


def test_beams_beyond_the_space_are_empty():
    found = beam_search(decoder(), features(), 60, max_length=LENGTH)
    exist = len(list(every_sentence(LENGTH)))
    assert found.scores[:, :exist].isfinite().all()
    assert (found.scores[:, exist:] == -torch.inf).all()
    assert (found.tokens[:, exist:, 0] == EOS).all()
    assert (found.tokens[:, exist:, 1:] == PAD).all()


def test_a_model_that_never_ends_is_ended():
    model = decoder()
    torch.nn.init.constant_(model.output.bias, 0.0)
    with torch.no_grad():
        model.output.bias[EOS] = -1e4
    tokens = beam_search(model, features(), width=2, max_length=5).tokens
    assert (tokens[..., 5] == EOS).all()


def test_alternatives_are_distinct_and_best_first():
    found = beam_search(decoder(), features(), width=5, max_length=6)
    for tokens, scores in zip(found.tokens.tolist(), found.scores, strict=True):
        assert len({tuple(row) for row in tokens}) == 5
        assert (scores.diff() <= 0).all()


def test_a_wider_beam_is_at_least_as_probable():
    model, rows = decoder(), features(16)
    narrow = beam_search(model, rows, width=1, length_penalty=0.0, max_length=8).scores[:, 0]
    wide = beam_search(model, rows, width=27, length_penalty=0.0, max_length=8).scores[:, 0]
    assert (wide >= narrow - 1e-5).all()
