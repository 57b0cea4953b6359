from functools import partial

import pytest
import torch

from captioning.data.records import UserError
from captioning.data.vocabulary import EOS, PAD
from captioning.metrics.reward import CiderReward
from captioning.models.lstm import LSTMDecoder
from captioning.models.risk import RiskModule, expected_worth
from captioning.search.beam import beam_search

TOKENS = torch.tensor([[[5, 6, EOS], [7, EOS, PAD]], [[8, EOS, PAD], [5, EOS, PAD]]])
WORTH = torch.tensor([[1.0, 3.0], [0.0, 2.0]])


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return LSTMDecoder(9, 4, embed_dim=8, hidden_dim=8).eval()


def log_probability(decoder, features, caption):
    """The plain way: word by word."""
    (state, word), total = (decoder.begin(features[None]), torch.tensor([1])), 0.0
    for following in caption:
        logits, state = decoder.step(word, state)
        total += logits.log_softmax(-1)[0, following]
        word = following[None]
        if following == EOS:
            return total


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0])
def test_captions_count_by_their_probability(decoder, sharpness):
    features = torch.randn(2, 4)
    expected = 0.0
    for picture, captions, worth in zip(features, TOKENS, WORTH, strict=True):
        said = torch.stack([log_probability(decoder, picture, caption) for caption in captions])
        expected += ((sharpness * said).softmax(0) * worth).sum() / 2
    torch.testing.assert_close(
        expected_worth(decoder, features, TOKENS, WORTH, sharpness), expected, atol=1e-5, rtol=0
    )


def test_what_is_worth_more_becomes_more_probable(decoder):
    features = torch.randn(2, 4)
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.5)
    before = expected_worth(decoder, features, TOKENS, WORTH, 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        (-expected_worth(decoder, features, TOKENS, WORTH, 0.5)).backward()
        optimizer.step()
    assert expected_worth(decoder, features, TOKENS, WORTH, 0.5) > before + 0.3


def risk_module(decoder, **options):
    options = {"risk_epochs": 2, "warmup": 0.0} | options
    search = partial(beam_search, width=2)
    return RiskModule(decoder, {"vocabulary": ["a"]}, search, CiderReward, **options)


class FourEpochs:
    max_epochs = 4
    global_rank = 0


def test_each_part_has_a_learning_rate_of_its_own(decoder, monkeypatch):
    module = risk_module(decoder, learning_rate=1e-2, risk_learning_rate=1e-3)
    monkeypatch.setattr(module, "_trainer", FourEpochs, raising=False)
    rates = [module.factor(step, 40) for step in range(41)]
    assert rates[0] == 1.0
    assert rates[19] < 0.01
    assert rates[20] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.05)
    assert rates[40] == 0


@pytest.mark.parametrize("epochs", [0, 4])
def test_both_parts_need_an_epoch(decoder, monkeypatch, epochs):
    module = risk_module(decoder, risk_epochs=epochs)
    monkeypatch.setattr(module, "_trainer", FourEpochs, raising=False)
    with pytest.raises(UserError, match=r"training\.risk_epochs"):
        module.on_fit_start()
