"""Beam search, greedy and diverse, on models small enough to go word by word."""

from functools import partial

import pytest
import torch
from tiny import (
    WORDS,
    assert_equal_alone,
    decoder,
    every_caption,
    features,
    log_probability,
    next_log_probs,
    read_caption,
)

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.search.beam import beam_search, choose_extensions, greedy_search

LENGTH = 6


def search_in_lockstep(model, row, groups, diversity):
    """Diverse beam search with groups of one beam, without tensors."""
    captions = [[BOS] for _ in range(groups)]
    states = [model.begin(row[None]) for _ in range(groups)]
    for time in range(LENGTH + 1):
        taken = dict.fromkeys(range(WORDS), 0)
        for group, caption in enumerate(captions):
            if caption[-1] != EOS:
                log_probs, states[group] = next_log_probs(
                    model, states[group], caption[-1], time == 0
                )
                scores = [float(log_probs[w]) - diversity * taken[w] for w in range(WORDS)]
                caption.append(EOS if time == LENGTH else scores.index(max(scores)))
                taken[caption[-1]] += 1
    return sorted(tuple(caption[1:]) for caption in captions)


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_groups_of_one_are_those_of_the_algorithm(diversity, seed):
    model, rows = decoder(seed), features()
    hypotheses = beam_search(model, rows, 4, max_length=LENGTH, groups=4, diversity=diversity)
    for row, tokens in zip(rows, hypotheses.tokens, strict=True):
        expected = search_in_lockstep(model, row, 4, diversity)
        assert sorted(map(read_caption, tokens)) == expected


def test_greedy_takes_the_most_probable_next_word():
    model, rows = decoder(), features()
    tokens = greedy_search(model, rows, max_length=LENGTH).tokens[:, 0]
    for row, caption in zip(rows, tokens, strict=True):
        assert [read_caption(caption)] == search_in_lockstep(model, row, 1, 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 3},
        {"width": 6, "min_length": 3, "no_repeat_ngram": 2},
        {"width": 6, "min_length": 3, "no_repeat_ngram": 2, "groups": 3, "diversity": 0.5},
    ],
)
def test_a_batch_gives_what_each_image_gives_alone(options):
    assert_equal_alone(partial(beam_search, decoder(), max_length=8, **options), features())


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_captions_are_distinct_and_best_first_and_end_once(width, seed):
    hypotheses = beam_search(decoder(seed), features(), width, max_length=LENGTH)
    for tokens, scores in zip(*hypotheses, strict=True):
        captions = set(map(read_caption, tokens))
        assert len(captions) == width
        assert max(map(len, captions)) <= LENGTH + 1
        assert (scores.diff() <= 0).all()


def test_beams_beyond_all_captions_are_empty():
    hypotheses = beam_search(decoder(), features(), 60, max_length=3)
    count = len(list(every_caption(3)))
    assert hypotheses.scores[:, :count].isfinite().all()
    assert (hypotheses.scores[:, count:] == -torch.inf).all()
    assert (hypotheses.tokens[:, count:, 0] == EOS).all()
    assert (hypotheses.tokens[:, count:, 1:] == PAD).all()


def test_one_group_is_beam_search_and_groups_without_diversity_are_equal_beams():
    search = partial(beam_search, decoder(), features(), max_length=LENGTH)
    plain = search(2)
    one_group = search(2, groups=1, diversity=5.0)
    assert torch.equal(one_group.tokens, plain.tokens)
    assert torch.equal(one_group.scores, plain.scores)
    assert torch.equal(search(6, groups=3).tokens, plain.tokens.repeat_interleave(3, 1))


@pytest.mark.parametrize("width", [3, 6])
def test_the_first_group_is_a_beam_of_its_own_and_scores_leave_the_penalty_out(width):
    model, rows = decoder(), features()
    hypotheses = beam_search(model, rows, width, max_length=LENGTH, groups=3, diversity=1.0)
    narrow = beam_search(model, rows, width // 3, max_length=LENGTH)
    for row, tokens, scores, first in zip(rows, *hypotheses, narrow.tokens, strict=True):
        captions = [*map(read_caption, tokens)]
        assert set(map(read_caption, first)) <= set(captions)
        expected = [log_probability(model, row, caption) / len(caption) for caption in captions]
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)
        assert (scores.diff() <= 0).all()


def extend_in_two_groups(candidates):
    words = torch.arange(WORDS).expand(candidates.shape)
    return choose_extensions(candidates, words, groups=2, diversity=1.0)


def test_a_finished_caption_takes_no_word_from_later_groups():
    candidates = torch.full((1, 4, WORDS), -torch.inf)
    candidates[0, [0, 2], PAD] = -1.0
    candidates[0, 1, 5] = -2.0
    candidates[0, 3, 5:] = torch.tensor([-1.2, -1.5])
    total, parent, word, penalty = extend_in_two_groups(candidates)
    assert word.tolist() == [[PAD, 5, PAD, 6]]
    assert parent.tolist() == [[0, 1, 2, 3]]
    assert total.tolist() == [[-1.0, -2.0, -1.0, -1.5]]
    assert penalty.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_a_beam_that_is_not_alive_takes_no_word_from_later_groups():
    torch.manual_seed(0)
    candidates = torch.randn(50, 4, WORDS)
    candidates[:, :2] = -torch.inf
    total, _, _, penalty = extend_in_two_groups(candidates)
    assert (penalty == 0).all()
    assert torch.equal(total[:, 2:], candidates[:, 2:].flatten(1).topk(2).values)


def test_groups_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(UserError, match="width=5 does not split into groups=2"):
        beam_search(decoder(), features(), width=5, groups=2)
