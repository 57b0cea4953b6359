import pytest
import torch

from captioning.data.records import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.features.batches import Batch
from captioning.models.lstm import LSTMDecoder
from captioning.models.module import CaptioningModule, caption_loss, warmup_cosine

WORDS = 9


def module(**options):
    decoder = LSTMDecoder(WORDS, 4, embed_dim=8, hidden_dim=8)
    return CaptioningModule(decoder, {"vocabulary": ["a"]}, **options)


def test_padding_gives_no_loss():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, WORDS)
    targets = torch.tensor([[5, 6, EOS], [7, EOS, PAD]])
    changed = logits.clone()
    changed[1, 2] += 100 * torch.randn(WORDS)
    torch.testing.assert_close(caption_loss(logits, targets), caption_loss(changed, targets))


def test_the_end_of_the_sentence_is_learnt():
    logits = torch.zeros(1, 2, WORDS)
    targets = torch.tensor([[5, EOS]])
    better = logits.clone()
    better[0, 1, EOS] = 5.0
    assert caption_loss(better, targets) < caption_loss(logits, targets)


def test_teacher_forcing_shifts_by_one(monkeypatch):
    """The decoder reads all but the last token; a perfect decoder of the next one has no loss."""
    tokens = torch.tensor([[BOS, 5, 6, EOS]])
    tested = module()

    def perfect(features, inputs):
        assert inputs.tolist() == [[BOS, 5, 6]]
        return 50.0 * torch.nn.functional.one_hot(torch.tensor([[5, 6, EOS]]), WORDS).float()

    monkeypatch.setattr(tested.decoder, "forward", perfect)
    monkeypatch.setattr(tested, "log", lambda *args, **kwargs: None)
    tested.label_smoothing = 0.0
    batch = Batch(torch.zeros(1, 4), tokens, torch.tensor([4]))
    assert float(tested.training_step(batch)) == pytest.approx(0.0, abs=1e-6)


def test_learning_rate_warms_up_then_falls_to_zero():
    rates = [warmup_cosine(step, total=100, warmup=10) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == 1.0
    assert rates[50] > rates[80] > rates[99] > 0
    assert warmup_cosine(100, 100, 10) == pytest.approx(0.0)


def test_a_checkpoint_of_another_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"vocabulary of 2 words, this run one of 1"):
        module().on_load_checkpoint({"captioning": {"vocabulary": ["a", "b"]}})
