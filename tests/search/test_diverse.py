"""Diverse beam search against plain beams, and against one picture done word by word."""

import itertools

import pytest
import torch
from tiny import WORDS, decoder, features, log_probability, sentence

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.search.beam import beam_search
from captioning.search.diverse import best_of_groups

LENGTH = 6


def lockstep(model, row, groups, diversity):
    """Each group a beam of one: the paper's algorithm without tensors."""
    said = [[] for _ in range(groups)]
    states = [model.begin(row[None]) for _ in range(groups)]
    for time in range(LENGTH + 1):
        taken = dict.fromkeys(range(WORDS), 0)
        for group in range(groups):
            if said[group] and said[group][-1] == EOS:
                continue
            last = said[group][-1] if said[group] else BOS
            logits, states[group] = model.step(torch.tensor([last]), states[group])
            logits[:, [PAD, BOS, UNK] + ([EOS] if time == 0 else [])] = -torch.inf
            scores = logits.log_softmax(-1)[0].tolist()
            best = max(range(WORDS), key=lambda w: scores[w] - diversity * taken[w])
            said[group].append(EOS if time == LENGTH else best)
            taken[said[group][-1]] += 1
    return sorted(map(tuple, said))


def first_words(found):
    return [len(set(words.tolist())) for words in found.tokens[:, :, 0]]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_groups_of_one_are_those_of_the_algorithm(diversity, seed):
    model, rows = decoder(seed), features()
    found = beam_search(model, rows, 4, max_length=LENGTH, groups=4, diversity=diversity)
    for row, tokens in zip(rows, found.tokens, strict=True):
        assert sorted(map(sentence, tokens)) == lockstep(model, row, 4, diversity)


def test_one_group_is_beam_search():
    model, rows = decoder(), features()
    plain = beam_search(model, rows, 4, max_length=LENGTH)
    diverse = beam_search(model, rows, 4, max_length=LENGTH, groups=1, diversity=5.0)
    assert torch.equal(plain.tokens, diverse.tokens)
    assert torch.equal(plain.scores, diverse.scores)


def test_groups_without_diversity_are_equal_beams():
    model, rows = decoder(), features()
    narrow = beam_search(model, rows, 2, max_length=LENGTH)
    grouped = beam_search(model, rows, 6, max_length=LENGTH, groups=3)
    assert torch.equal(grouped.tokens, narrow.tokens.repeat_interleave(3, 1))


@pytest.mark.parametrize("width", [3, 6])
def test_the_first_group_is_a_beam_of_its_own(width):
    model, rows = decoder(), features()
    narrow = beam_search(model, rows, width // 3, max_length=LENGTH)
    found = beam_search(model, rows, width, max_length=LENGTH, groups=3, diversity=2.0)
    for few, many in zip(narrow.tokens, found.tokens, strict=True):
        assert set(map(sentence, few)) <= set(map(sentence, many))


@pytest.mark.parametrize("seed", range(4))
def test_more_diversity_gives_no_fewer_first_words(seed):
    counts = [
        first_words(beam_search(decoder(seed), features(8), 3, groups=3, diversity=diversity))
        for diversity in (0.0, 0.2, 0.5, 1.0, 2.0, 100.0)
    ]
    for less, more in itertools.pairwise(counts):
        assert all(a <= b for a, b in zip(less, more, strict=True))
    assert counts[0] == [1] * 8
    assert counts[-1] == [3] * 8


@pytest.mark.parametrize("width", [3, 6])
def test_scores_are_log_probabilities_without_the_penalty(width):
    model, rows = decoder(), features()
    found = beam_search(model, rows, width, max_length=LENGTH, groups=3, diversity=1.0)
    for row, tokens, scores in zip(rows, found.tokens, found.scores, strict=True):
        words = [sentence(one) for one in tokens]
        expected = [log_probability(model, row, s) / len(s) for s in words]
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)
        assert (scores.diff() <= 0).all()


def every_word(candidates):
    return torch.arange(WORDS).expand(candidates.shape)


def test_a_sentence_that_has_ended_takes_no_word_from_later_groups():
    candidates = torch.full((1, 4, WORDS), -torch.inf)
    candidates[0, [0, 2], PAD] = -1.0
    candidates[0, 1, 5] = -2.0
    candidates[0, 3, 5:] = torch.tensor([-1.2, -1.5])
    step = best_of_groups(candidates, every_word(candidates), groups=2, diversity=1.0)
    assert step.word.tolist() == [[PAD, 5, PAD, 6]]
    assert step.parent.tolist() == [[0, 1, 2, 3]]
    assert step.total.tolist() == [[-1.0, -2.0, -1.0, -1.5]]
    assert step.penalty.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_a_beam_that_is_not_alive_takes_no_word_from_later_groups():
    torch.manual_seed(0)
    candidates = torch.randn(50, 4, WORDS)
    candidates[:, :2] = -torch.inf
    step = best_of_groups(candidates, every_word(candidates), groups=2, diversity=1.0)
    assert (step.penalty == 0).all()
    assert torch.equal(step.total[:, 2:], candidates[:, 2:].flatten(1).topk(2).values)


def test_groups_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(UserError, match="width=5 does not split into groups=2"):
        beam_search(decoder(), features(), width=5, groups=2)
