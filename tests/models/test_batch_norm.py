import pytest
import torch
from torch import nn

from captioning.models.batch_norm import BatchNorm
from captioning.models.lstm import LSTMDecoder
from captioning.models.transformer import TransformerDecoder

WORDS, FEATURE = 9, 4
DECODERS = {
    "lstm": lambda: LSTMDecoder(WORDS, FEATURE, 8, 8),
    "pre": lambda: LSTMDecoder(WORDS, FEATURE, 8, 8, inject="pre"),
    "par": lambda: LSTMDecoder(WORDS, FEATURE, 8, 8, inject="par"),
    "transformer": lambda: TransformerDecoder(WORDS, FEATURE, 8, heads=2),
}


@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)
def test_decoders_learn_from_the_captions_of_a_single_pooled_image(make):
    decoder = make().train()
    state = tuple(part.repeat_interleave(3, 0) for part in decoder.begin(torch.randn(1, FEATURE)))
    hidden, _ = decoder.decode(torch.randint(4, WORDS, (3, 5)), state)
    decoder.output(hidden).logsumexp(-1).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in decoder.parameters())


@pytest.mark.parametrize("affine", [True, False])
def test_batches_of_more_rows_are_normalized_as_by_torch(affine):
    ours, theirs = BatchNorm(3, affine=affine), nn.BatchNorm1d(3, affine=affine)
    for rows in torch.randn(5, 4, 3):
        assert torch.equal(ours(rows), theirs(rows))
    assert torch.equal(ours.eval()(rows), theirs.eval()(rows))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_single_rows_teach_the_statistics_of_all():
    torch.manual_seed(0)
    norm = BatchNorm(64, momentum=0.01)
    for row in 5 + 2 * torch.randn(2000, 1, 64):
        norm(row)
    assert norm.running_mean.mean() == pytest.approx(5, abs=0.1)
    assert norm.running_var.mean() == pytest.approx(4, rel=0.1)
    assert norm.num_batches_tracked == 2000


def test_a_single_row_is_normalized_by_the_statistics_before_it():
    norm, row = BatchNorm(3), torch.randn(1, 3)
    norm(torch.randn(8, 3))
    expected = norm.eval()(row)
    assert torch.equal(norm.train()(row), expected)


def test_two_single_rows_may_be_learnt_from_at_once():
    """What the second does to the statistics leaves the gradient of the first as it is."""
    norm, rows = BatchNorm(3), torch.randn(2, 3, requires_grad=True)
    (norm(rows[:1]) + norm(rows[1:])).sum().backward()
    assert rows.grad.isfinite().all()


def test_lightning_may_make_it_see_the_batches_of_all_processes():
    made = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(BatchNorm(3, affine=False)))
    assert isinstance(made[0], nn.SyncBatchNorm)
