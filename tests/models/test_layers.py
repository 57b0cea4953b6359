import pytest
import torch
from torch import nn

from captioning.models.layers import LSTM, BatchNorm, Dropout, autocast_dtype


@pytest.mark.parametrize("affine", [True, False])
def test_batches_of_more_rows_are_normalized_as_by_torch(affine):
    ours, torchs = BatchNorm(3, affine=affine), nn.BatchNorm1d(3, affine=affine)
    for rows in torch.randn(5, 4, 3):
        assert torch.equal(ours(rows), torchs(rows))
    assert torch.equal(ours.eval()(rows), torchs.eval()(rows))
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    for key, value in torchs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_single_rows_update_the_running_statistics():
    torch.manual_seed(0)
    norm = BatchNorm(64, momentum=0.01)
    for row in 5 + 2 * torch.randn(2000, 1, 64):
        norm(row)
    assert norm.running_mean.mean() == pytest.approx(5, abs=0.1)
    assert norm.running_var.mean() == pytest.approx(4, rel=0.1)
    assert norm.num_batches_tracked == 2000


def test_a_single_row_is_normalized_by_the_statistics_before_it():
    """An update by another row leaves the gradient as it is."""
    norm, rows = BatchNorm(3), torch.randn(2, 3, requires_grad=True)
    norm(torch.randn(8, 3))
    expected = norm.eval()(rows[:1])
    normalized = norm.train()(rows[:1])
    assert torch.equal(normalized, expected)
    (normalized + norm(rows[1:])).sum().backward()
    assert rows.grad.isfinite().all()


def test_lightning_may_convert_it_to_sync_batch_norm():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(BatchNorm(3, affine=False)))
    assert isinstance(converted[0], nn.SyncBatchNorm)


@pytest.mark.parametrize("p", [1e-6, 0.001, 1 / 512, 0.002, 0.003, 0.01, 0.4, 0.9, 0.997, 0.999])
def test_the_share_is_dropped_and_the_mean_preserved(p):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1000, 1001))
    by_chance = 5 * (p * (1 - p) / dropped.numel()) ** 0.5
    # A byte decides: p is a 256th or so.
    rounding = 1 / 512 if 1 / 512 < p < 511 / 512 else 1e-6
    assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=rounding + by_chance)
    assert dropped.double().mean().item() == pytest.approx(1.0, abs=5 * (p / (1 - p) / 1e6) ** 0.5)


def test_neighbours_are_dropped_independently():
    """The eight bytes of one draw are not correlated."""
    torch.manual_seed(0)
    retained = (Dropout(0.5)(torch.ones(100_000, 8)) > 0).float()
    torch.testing.assert_close(retained.T.corrcoef(), torch.eye(8), atol=0.02, rtol=0)


def test_each_call_drops_others_and_a_seed_the_same():
    dropout, ones = Dropout(0.3), torch.ones(1000)
    torch.manual_seed(1)
    first, second = dropout(ones), dropout(ones)
    torch.manual_seed(1)
    assert not torch.equal(first, second)
    assert torch.equal(first, dropout(ones))


def test_the_gradient_is_dropped_and_scaled_alike():
    ones = torch.ones(1000, requires_grad=True)
    dropped = Dropout(0.5)(ones)
    dropped.sum().backward()
    assert set(dropped.tolist()) == {0.0, 2.0}
    assert torch.equal(ones.grad, dropped.detach())


@pytest.mark.parametrize("dropout", [Dropout(0.0), Dropout(0.9).eval()])
def test_nothing_is_dropped_at_p_0_or_in_eval_mode(dropout):
    numbers = torch.randn(3, 5)
    assert dropout(numbers) is numbers


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="dropout"):
        Dropout(p)


def test_a_layer_at_a_time_is_torchs_lstm():
    """As a GPU computes it, here on the CPU; gradients, too."""
    torch.manual_seed(0)
    lstm = LSTM(5, 7, 2, batch_first=True)
    words, *state = torch.randn(3, 4, 5), torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    outputs, (hidden, cell) = lstm.forward_by_layer(words, tuple(state))
    expected, (last_hidden, last_cell) = nn.LSTM.forward(lstm, words, tuple(state))
    torch.testing.assert_close((outputs, hidden, cell), (expected, last_hidden, last_cell))
    weights = list(lstm.parameters())
    grads = [torch.autograd.grad(out.square().sum(), weights) for out in (outputs, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("batch", [1, 6])
def test_one_word_without_gradients_is_torchs_lstm(batch):
    torch.manual_seed(0)
    lstm = LSTM(5, 7, batch_first=True)
    word, *state = torch.randn(batch, 1, 5), torch.randn(1, batch, 7), torch.randn(1, batch, 7)
    expected = nn.LSTM.forward(lstm, word, tuple(state))
    with torch.inference_mode():
        torch.testing.assert_close(lstm(word, tuple(state)), expected)


def test_an_lstm_is_in_autocasts_precision_and_its_gradients_are_float32():
    lstm = LSTM(5, 7, batch_first=True)
    with torch.autocast("cpu", torch.bfloat16):
        state = torch.zeros(1, 3, 7), torch.zeros(1, 3, 7)
        outputs, state = lstm.forward_by_layer(torch.randn(3, 4, 5), state)
    assert {outputs.dtype, state[0].dtype, state[1].dtype} == {torch.bfloat16}
    outputs.float().sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in lstm.parameters())


def test_layers_of_an_lstm_are_dropped_out_between_as_in_torch():
    lstm = LSTM(5, 300, 2, batch_first=True, dropout=0.5)
    words, state = torch.randn(1, 1, 5), (torch.zeros(2, 1, 300), torch.zeros(2, 1, 300))
    first, second = (lstm.forward_by_layer(words, state) for _ in range(2))
    assert torch.equal(first[1][0][0], second[1][0][0])  # the first layer's own state
    assert not torch.equal(first[0], second[0])
    lstm.eval()
    assert torch.equal(
        lstm.forward_by_layer(words, state)[0], lstm.forward_by_layer(words, state)[0]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_in_autocasts_precision_or_in_their_own(dtype):
    tensor = torch.zeros(1, dtype=torch.float64)
    assert autocast_dtype(tensor) == torch.float64
    with torch.autocast("cpu", dtype):
        assert autocast_dtype(tensor) == dtype
        with torch.autocast("cpu", enabled=False):
            assert autocast_dtype(tensor) == torch.float64
