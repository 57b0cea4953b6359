import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.features.batches import Batch
from captioning.models.lstm import LSTMDecoder
from captioning.training.module import CaptioningModule, warmup_cosine

WORDS = 9


def module(**options):
    decoder = LSTMDecoder(WORDS, 4, embed_dim=8, hidden_dim=8)
    return CaptioningModule(decoder, {"vocabulary": ["a"]}, **options)


def batch():
    """Two pictures, three captions; the second is of the second picture."""
    torch.manual_seed(0)
    tokens = torch.tensor([[BOS, 5, 6, EOS, PAD], [BOS, 7, EOS, PAD, PAD], [BOS, 5, 7, 8, EOS]])
    words = torch.tensor([0, 1, 2, 4, 5, 8, 9, 10, 11])
    return Batch(torch.randn(2, 4), torch.tensor([7, 9]), torch.tensor([0, 1, 0]), tokens, words)


def training_loss(tested, batch, monkeypatch):
    monkeypatch.setattr(tested, "log", lambda *args, **kwargs: None)
    return tested.training_step(batch)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_plain_way(monkeypatch, smoothing):
    """A picture a caption, logits at every place, and padding left out of the mean."""
    tested, data = module(label_smoothing=smoothing).eval(), batch()
    logits = tested.decoder(data.features[data.image_index], data.tokens[:, :-1])
    targets = data.tokens[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets, ignore_index=PAD, label_smoothing=smoothing
    )
    torch.testing.assert_close(
        training_loss(tested, data, monkeypatch), expected, atol=1e-5, rtol=0
    )


def test_the_fast_way_learns_what_the_plain_way_learns(monkeypatch):
    tested, data = module(label_smoothing=0.0).eval(), batch()
    training_loss(tested, data, monkeypatch).backward()
    fast = [weight.grad.clone() for weight in tested.decoder.parameters()]
    tested.zero_grad()
    logits = tested.decoder(data.features[data.image_index], data.tokens[:, :-1])
    targets = data.tokens[:, 1:].flatten()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=PAD).backward()
    for weight, gradient in zip(tested.decoder.parameters(), fast, strict=True):
        torch.testing.assert_close(gradient, weight.grad, atol=1e-5, rtol=0)


def test_the_end_of_the_sentence_is_learnt(monkeypatch):
    tested, data = module(label_smoothing=0.0).eval(), batch()
    before = training_loss(tested, data, monkeypatch)
    with torch.no_grad():
        tested.decoder.output.bias[EOS] += 1
    assert training_loss(tested, data, monkeypatch) < before


def test_learning_rate_warms_up_then_falls_to_zero():
    rates = [warmup_cosine(step, total=100, warmup=10) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == 1.0
    assert rates[50] > rates[80] > rates[99] > 0
    assert warmup_cosine(100, 100, 10) == pytest.approx(0.0)


def test_learning_rate_stays_without_the_cosine():
    rates = [warmup_cosine(step, total=100, warmup=10, cosine=False) for step in range(100)]
    assert rates[0] < rates[5] < rates[10]
    assert set(rates[10:]) == {1.0}
    assert warmup_cosine(0, total=100, warmup=0, cosine=False) == 1.0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_whatever_the_precision(precision):
    norms = []

    class Norms(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]))

    trainer = pl.Trainer(
        max_epochs=1,
        limit_val_batches=0,
        accelerator="cpu",
        precision=precision,
        gradient_clip_val=1e-3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Norms()],
    )
    loader = DataLoader([batch()], batch_size=None, collate_fn=lambda one: one)
    trainer.fit(module(), loader, loader)
    assert norms[0].item() == pytest.approx(1e-3, rel=1e-2)


def test_a_checkpoint_of_another_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"vocabulary of 2 words, this run one of 1"):
        module().on_load_checkpoint({"captioning": {"vocabulary": ["a", "b"]}})
