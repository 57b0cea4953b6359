import pytest
import torch

from captioning.models.dropout import Dropout


@pytest.mark.parametrize(
    "p", [1e-6, 0.0005, 0.001, 1 / 512, 0.0020, 0.003, 0.01, 0.4, 0.9, 0.99, 0.997, 0.999]
)
def test_the_share_is_dropped_and_the_mean_kept(p):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1000, 1001))
    by_chance = 5 * (p * (1 - p) / dropped.numel()) ** 0.5
    # A byte decides: p is a 256th or so.
    rounding = 1 / 512 if 1 / 512 < p < 511 / 512 else 1e-6
    assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=rounding + by_chance)
    assert dropped.double().mean().item() == pytest.approx(1.0, abs=5 * (p / (1 - p) / 1e6) ** 0.5)


def test_what_stays_is_scaled_by_the_share_that_stays():
    dropped = Dropout(0.5)(torch.full((100,), 3.0))
    assert set(dropped.tolist()) == {0.0, 6.0}


def test_neighbours_are_dropped_independently():
    """The eight bytes of one draw say nothing about each other."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(100_000, 8)) > 0).float()
    torch.testing.assert_close(kept.T.corrcoef(), torch.eye(8), atol=0.02, rtol=0)


def test_each_call_drops_others_and_a_seed_the_same():
    dropout, numbers = Dropout(0.3), torch.ones(1000)
    torch.manual_seed(1)
    first, second = dropout(numbers), dropout(numbers)
    torch.manual_seed(1)
    assert not torch.equal(first, second)
    assert torch.equal(first, dropout(numbers))


def test_what_is_dropped_gets_no_gradient():
    numbers = torch.ones(1000, requires_grad=True)
    dropped = Dropout(0.3)(numbers)
    dropped.sum().backward()
    assert torch.equal(numbers.grad, dropped.detach())


@pytest.mark.parametrize("dropout", [Dropout(0.0), Dropout(0.9).eval()])
def test_nothing_is_dropped_without_a_share_or_in_eval_mode(dropout):
    numbers = torch.randn(3, 5)
    assert dropout(numbers) is numbers


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="dropout"):
        Dropout(p)
