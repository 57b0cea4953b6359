import pytest
import torch

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.models.ensemble import Ensemble
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.models.transformer import TransformerDecoder
from captioning.search.beam import beam_search

WORDS, FEATURE, BATCH, TIME = 11, 6, 3, 5


def lstm(seed):
    torch.manual_seed(seed)
    return LSTMDecoder(WORDS, FEATURE, embed_dim=8, hidden_dim=7).eval()


@pytest.fixture
def features():
    return torch.randn(BATCH, FEATURE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mixed():
    """Members with states of two and of three parts, and one whose state grows."""
    merge = MergeDecoder(WORDS, FEATURE, hidden_dim=8).eval()
    transformer = TransformerDecoder(WORDS, FEATURE, hidden_dim=8, heads=2).eval()
    return Ensemble([lstm(1), transformer, merge, lstm(2)])


@pytest.mark.parametrize("copies", [1, 2])
def test_equal_members_are_as_one(features, copies):
    one = lstm(1)
    alone, together = beam_search(one, features), beam_search(Ensemble([one] * copies), features)
    assert torch.equal(alone.tokens, together.tokens)
    torch.testing.assert_close(alone.scores, together.scores)


def test_probabilities_are_averaged(features):
    members = [lstm(1), lstm(2)]
    ensemble = Ensemble(members)
    words = torch.full((BATCH,), BOS)
    said, _ = ensemble.step(words, ensemble.begin(features))
    alone = [one.step(words, one.begin(features))[0].softmax(-1) for one in members]
    torch.testing.assert_close(said.exp(), (alone[0] + alone[1]) / 2)


def test_forward_equals_repeated_step(mixed, features):
    tokens = torch.randint(4, WORDS, (BATCH, TIME))
    state, steps = mixed.begin(features), []
    for time in range(TIME):
        said, state = mixed.step(tokens[:, time], state)
        steps.append(said)
    torch.testing.assert_close(torch.stack(steps, 1), mixed(features, tokens))


def test_a_beam_of_them_is_what_they_say_together(mixed, features):
    tokens, scores = beam_search(mixed, features, width=4, length_penalty=0.0, max_length=TIME)
    rows, tokens = features.repeat_interleave(4, 0), tokens.flatten(0, 1)
    heard = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], 1)
    with torch.no_grad():
        said = mixed(rows, heard.clone())
    said[..., [PAD, BOS, UNK]] = -torch.inf
    said[:, 0, EOS] = -torch.inf
    each = said.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    expected = each.masked_fill(tokens == PAD, 0.0).sum(1)
    torch.testing.assert_close(scores.flatten(), expected)


def test_search_may_reorder_the_rows_of_its_state(mixed, features):
    words, order = torch.full((BATCH,), BOS), torch.tensor([2, 0, 1])
    state = tuple(part[order] for part in mixed.begin(features))
    expected, _ = mixed.step(words, mixed.begin(features[order]))
    torch.testing.assert_close(mixed.step(words, state)[0], expected)
