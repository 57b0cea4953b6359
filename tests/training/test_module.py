import pytest
import pytorch_lightning as pl
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from captioning import UserError
from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.features.batches import Batch
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.models.transformer import TransformerDecoder
from captioning.models.updown import UpDownDecoder
from captioning.training.module import CaptioningModule

WORDS, FEATURE = 9, 4
WAITING = {"item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "nonzero"}
REGIONAL = [AttentionDecoder, UpDownDecoder, TransformerDecoder]


def make_module(decoder=LSTMDecoder, **options):
    decoder = decoder(WORDS, FEATURE, hidden_dim=8)
    return CaptioningModule(decoder, {"vocabulary": ["a"]}, **options)


def make_batch(*regions):
    """Two images, three captions; the second is of the second image."""
    torch.manual_seed(0)
    tokens = torch.tensor([[BOS, 5, 6, EOS, PAD], [BOS, 7, EOS, PAD, PAD], [BOS, 5, 7, 8, EOS]])
    positions = torch.tensor([0, 1, 2, 4, 5, 8, 9, 10, 11])
    features = torch.randn(2, *regions, FEATURE)
    return Batch(features, torch.tensor([7, 9]), torch.tensor([0, 1, 0]), tokens, positions)


def fit(module, batches, callback, **options):
    trainer = pl.Trainer(
        max_epochs=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        **options,
    )
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
    trainer.fit(module, loader, loader)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_those_of_one_image_a_caption(monkeypatch, smoothing):
    """With logits at every position, and padding left out of the mean."""
    module, batch = make_module(label_smoothing=smoothing).eval(), make_batch()
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    logits = module.decoder(batch.features[batch.image_index], batch.tokens[:, :-1])
    targets = batch.tokens[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets, ignore_index=PAD, label_smoothing=smoothing
    )
    loss, weights = module.training_step(batch), list(module.decoder.parameters())
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    grads, expected = (torch.autograd.grad(value, weights) for value in (loss, expected))
    torch.testing.assert_close(grads, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cosine", [True, False])
def test_learning_rate_warms_up_then_falls_to_zero_or_stays(cosine):
    module = make_module(warmup=0.1, cosine=cosine)
    rates = [module.lr_factor(step, 100) for step in range(101)]
    assert 0 < rates[0] < rates[5] < rates[10] == 1.0
    if cosine:
        assert 1 > rates[50] > rates[80] > rates[99] > 0
        assert rates[100] == pytest.approx(0.0)
    else:
        assert set(rates[10:]) == {1.0}
    module.warmup = 0.0
    assert module.lr_factor(0, 100) == 1.0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_whatever_the_precision(precision):
    norms = []

    class Norms(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]))

    options = {"precision": precision, "gradient_clip_val": 1e-3, "limit_val_batches": 0}
    fit(make_module(), [make_batch()], Norms(), **options)
    assert norms[0].item() == pytest.approx(1e-3, rel=1e-2)


def test_a_checkpoint_of_another_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"vocabulary of 2 words, this run one of 1"):
        make_module().on_load_checkpoint({"captioning": {"vocabulary": ["a", "b"]}})


class WaitingCalls(pl.Callback, TorchFunctionMode):
    """Records every call that waits for the device, from a step's start to its optimizer's end."""

    def __init__(self):
        super().__init__()
        self.is_recording, self.steps, self.calls = False, 0, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if self.is_recording and name in WAITING:
            self.calls.append(name)
        return function(*args, **(kwargs or {}))

    def on_train_batch_start(self, *_):
        self.is_recording, self.steps = True, self.steps + 1

    def on_train_batch_end(self, *_):
        self.is_recording = False


@pytest.mark.parametrize("decoder", [LSTMDecoder, MergeDecoder, *REGIONAL])
def test_a_training_step_never_waits_for_the_device(decoder):
    regions = (3,) if decoder in REGIONAL else ()
    with WaitingCalls() as waiting:
        fit(make_module(decoder), [make_batch(*regions)] * 3, waiting, gradient_clip_val=5.0)
    assert waiting.steps == 3
    assert waiting.calls == []


def test_a_call_that_waits_is_recorded():
    waiting = WaitingCalls()
    waiting.is_recording = True
    with waiting:
        torch.ones(1).item()
    assert waiting.calls == ["item"]
