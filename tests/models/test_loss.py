"""The loss in parts, against torch's of all logits at once."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from captioning.models import loss
from captioning.models.loss import word_loss

WORDS, HIDDEN, VOCABULARY = 13, 6, 9


@pytest.fixture(params=[1, 4, 100])
def parts(request, monkeypatch):
    """Rows at a time: one, some with a rest, all."""
    monkeypatch.setattr(loss, "AT_ONCE", request.param * VOCABULARY)


def inputs():
    torch.manual_seed(0)
    hidden = torch.randn(WORDS, HIDDEN, requires_grad=True)
    return hidden, nn.Linear(HIDDEN, VOCABULARY), torch.randint(0, VOCABULARY, (WORDS,))


def learnt(value, hidden, output):
    return torch.autograd.grad(3 * value, [hidden, output.weight, output.bias])


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_torchs(smoothing):
    hidden, output, targets = inputs()
    plain = F.cross_entropy(output(hidden), targets, label_smoothing=smoothing)
    ours = word_loss(hidden, output, targets, smoothing)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)
    for mine, theirs in zip(
        learnt(ours, hidden, output), learnt(plain, hidden, output), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_large_logits_do_not_overflow():
    hidden, output, targets = inputs()
    ours = word_loss(1e4 * hidden, output, targets)
    torch.testing.assert_close(ours, F.cross_entropy(output(1e4 * hidden), targets))


def test_nothing_is_learnt_without_gradients():
    hidden, output, targets = inputs()
    with torch.no_grad():
        ours = word_loss(hidden, output, targets)
    assert not ours.requires_grad
    torch.testing.assert_close(ours, F.cross_entropy(output(hidden), targets))


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_without_gradients(off):
    """One matrix product makes the logits; two more would make the gradients."""
    hidden, output, targets = inputs()
    with FlopCounterMode(display=False) as counter, off():
        word_loss(hidden, output, targets)
    assert counter.get_total_flops() == 2 * WORDS * HIDDEN * VOCABULARY


def test_autocast_multiplies_in_low_precision_and_adds_in_float32():
    hidden, output, targets = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = word_loss(hidden, output, targets)
        plain = F.cross_entropy(output(hidden), targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, atol=1e-2, rtol=0)
    mine, theirs = learnt(ours, hidden, output), learnt(plain, hidden, output)
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=2e-2, rtol=0)
