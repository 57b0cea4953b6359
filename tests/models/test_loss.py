"""The loss in chunks, against torch's of all logits at once."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from captioning.models import loss
from captioning.models.loss import word_loss

WORDS, HIDDEN, VOCABULARY = 13, 6, 9


@pytest.fixture(params=[1, 4, 100])
def chunk(request, monkeypatch):
    """Words at a time: one, some with a rest, all."""
    monkeypatch.setitem(loss.CHUNK_LOGITS, "cpu", request.param * VOCABULARY)


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    hidden = torch.randn(WORDS, HIDDEN, requires_grad=True)
    return hidden, nn.Linear(HIDDEN, VOCABULARY), torch.randint(0, VOCABULARY, (WORDS,))


def assert_equal_with_gradients(ours, torchs, hidden, output, atol, grad_atol):
    torch.testing.assert_close(ours, torchs, atol=atol, rtol=0)
    weights = [hidden, output.weight, output.bias]
    our_grads, torch_grads = (torch.autograd.grad(3 * value, weights) for value in (ours, torchs))
    assert all(grad.dtype == torch.float32 for grad in our_grads)
    torch.testing.assert_close(our_grads, torch_grads, atol=grad_atol, rtol=0)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_torchs(inputs, smoothing):
    hidden, output, targets = inputs
    torchs = F.cross_entropy(output(hidden), targets, label_smoothing=smoothing)
    ours = word_loss(hidden, output, targets, smoothing)
    assert_equal_with_gradients(ours, torchs, hidden, output, 1e-6, 1e-6)


def test_autocast_multiplies_in_low_precision_and_adds_in_float32(inputs):
    hidden, output, targets = inputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = word_loss(hidden, output, targets)
        torchs = F.cross_entropy(output(hidden), targets)
    assert ours.dtype == torch.float32
    assert_equal_with_gradients(ours, torchs, hidden, output, 1e-2, 2e-2)


def test_large_logits_do_not_overflow(inputs):
    hidden, output, targets = inputs
    ours = word_loss(1e4 * hidden, output, targets)
    torch.testing.assert_close(ours, F.cross_entropy(output(1e4 * hidden), targets))


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_without_gradients(inputs, off):
    """One matrix product makes the logits; two more would make the gradients."""
    hidden, output, targets = inputs
    with FlopCounterMode(display=False) as counter, off():
        ours = word_loss(hidden, output, targets)
    assert counter.get_total_flops() == 2 * WORDS * HIDDEN * VOCABULARY
    assert not ours.requires_grad
    torch.testing.assert_close(ours, F.cross_entropy(output(hidden), targets).detach())
