import pytest
import torch

from captioning.data.vocabulary import BOS
from captioning.models.ensemble import Ensemble
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
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
    """Members with states of two and of three parts."""
    return Ensemble([lstm(1), MergeDecoder(WORDS, FEATURE, hidden_dim=8).eval(), lstm(2)])


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


def test_search_may_reorder_the_rows_of_its_state(mixed, features):
    words, order = torch.full((BATCH,), BOS), torch.tensor([2, 0, 1])
    state = tuple(part[order] for part in mixed.begin(features))
    expected, _ = mixed.step(words, mixed.begin(features[order]))
    torch.testing.assert_close(mixed.step(words, state)[0], expected)
