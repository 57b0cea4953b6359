"""Training on a GPU: the precision that was asked for, the losses of a CPU, and no waiting."""

import functools
import re

import pytest
import pytorch_lightning as pl
import torch
from datamodules import make_data
from fits import DECODERS, NEEDS_GRID, QUIET, fit, make_decoder

from captioning import UserError
from captioning.features.encoder import Encoder
from captioning.metrics.reward import CiderReward
from captioning.search.beam import beam_search
from captioning.training import fit as training_fit
from captioning.training.minimum_risk import RiskModule
from captioning.training.module import CaptioningModule
from captioning.training.resume import ExactResume
from captioning.training.trainer import configure_torch

PRECISIONS = {  # of hidden states, and how far a loss may be from the CPU's in float32, in nats
    "32-true": (torch.float32, 0.0001),
    "bf16-mixed": (torch.bfloat16, 0.02),
    "16-mixed": (torch.float16, 0.01),
}


@pytest.fixture
def data(records, encoder, tmp_path):
    """Return a function that returns the data that a decoder needs."""

    def make(name="lstm", **options):
        grid = Encoder("resnet18", None, "grid", image_size=64) if name in NEEDS_GRID else encoder
        return make_data(records, grid, tmp_path / "features", **options)

    return make


EXPECTED = {}  # losses on a CPU


@pytest.mark.filterwarnings("ignore:Detected call of")  # the scaler leaves out its first steps
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", DECODERS)
def test_the_precision_is_what_was_asked_for_and_the_losses_are_the_cpus(data, name, precision):
    data = data(name)
    dtype, bound = PRECISIONS[precision]
    if name not in EXPECTED:
        EXPECTED[name] = fit(data, make_decoder(name, data), accelerator="cpu")[1]
    expected = EXPECTED[name]
    _, losses, dtypes = fit(data, make_decoder(name, data), precision=precision)
    assert dtypes == {torch.float32 if name == "transformer" else dtype}  # after a layer norm
    assert losses == pytest.approx(expected, abs=bound)
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_risk_training_earns_what_it_does_on_a_cpu(data, precision):
    data = data()
    search = functools.partial(beam_search, width=3, max_length=6)
    options = {"search": search, "reward": CiderReward, "risk_epochs": 4}
    make_module = functools.partial(RiskModule, **options)
    decoder = functools.partial(make_decoder, "lstm", data)
    _, expected, _ = fit(data, decoder(), make_module=make_module, accelerator="cpu")
    _, losses, dtypes = fit(data, decoder(), make_module=make_module, precision=precision)
    dtype, bound = PRECISIONS[precision]
    assert dtypes == {dtype}
    assert losses == pytest.approx(expected, abs=bound)
    assert losses[-1] < -0.5  # the negative reward


class NoWaiting(pl.Callback):
    """Makes torch raise an error where the host would wait, from the second step of an epoch on."""

    def on_train_batch_start(self, trainer, pl_module, batch, index):
        if index == 1:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_epoch_end(self, *_):
        torch.cuda.set_sync_debug_mode("default")

    on_exception = on_train_epoch_end


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize(
    ("name", "precision", "resident"),
    [
        ("lstm", "32-true", False),
        ("lstm", "bf16-mixed", True),
        ("attention", "32-true", True),
        ("attention", "bf16-mixed", False),
        ("merge", "bf16-mixed", False),
        ("updown", "bf16-mixed", False),
        ("transformer", "bf16-mixed", False),
    ],
)
def test_nothing_in_a_step_waits_for_the_gpu(data, tmp_path, name, precision, resident):
    configure_torch()
    data = data(name, batch_size=3, resident=resident)
    callbacks = [*training_fit.default_callbacks(str(tmp_path)), NoWaiting()]
    decoder = make_decoder(name, data, dropout=0.3)
    options = {"precision": precision, "enable_progress_bar": True, "max_epochs": 3}
    fit(data, decoder, *callbacks, **options)


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_resident_features_give_the_same_losses(data, name):
    configure_torch()
    losses = []
    for resident in (False, True):
        of_mode = data(name, resident=resident)
        decoder = make_decoder(name, of_mode, dropout=0.3)
        losses.append(fit(of_mode, decoder, deterministic=True)[1])
    assert losses[0] == losses[1]


class SaveAtStep(pl.Callback):
    """Saves a checkpoint in the middle of an epoch, as SIGTERM does."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 7:
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("lstm", "32-true"),
        ("lstm, two layers, tied", "bf16-mixed"),
        ("lstm, two layers, tied", "32-true"),
        ("attention", "bf16-mixed"),
        ("updown", "32-true"),
        ("transformer", "bf16-mixed"),
        ("merge", "32-true"),
        ("lstm, image first", "bf16-mixed"),
        ("lstm, image beside", "32-true"),
    ],
)
def test_a_resumed_run_is_bit_equal(data, tmp_path, name, precision):
    configure_torch()
    data, path = data(name), tmp_path / "middle.ckpt"
    options = {"deterministic": True, "precision": precision}
    decoder = functools.partial(make_decoder, name, data, dropout=0.3)
    whole, *_ = fit(data, decoder(), ExactResume(), SaveAtStep(path), **options)
    resumed, losses, _ = fit(data, decoder(), ExactResume(), ckpt_path=path, **options)
    assert len(losses) == 13
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_out_of_memory_names_a_batch_size_that_works(records, encoder, tmp_path):
    many = [record._replace(captions=2000 * record.captions) for record in records]
    torch.cuda.empty_cache()
    memory = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 6e8) / memory)

    def train(batch_size):
        data = make_data(many, encoder, tmp_path / "features", batch_size=batch_size)
        decoder = make_decoder("lstm", data, embed_dim=512)
        module = CaptioningModule(decoder, {"vocabulary": data.vocabulary.words})
        callbacks = training_fit.default_callbacks(str(tmp_path))
        trainer = pl.Trainer(
            max_epochs=1, accelerator="gpu", default_root_dir=tmp_path, callbacks=callbacks, **QUIET
        )
        training_fit.fit(trainer, module, data, None, lambda: "the same command")

    try:
        with pytest.raises(UserError, match="out of memory") as error:
            train(24_000)
        batch_size = int(re.search(r"datamodule.batch_size=(\d+) fits", str(error.value))[1])
        assert 2 < batch_size < 24_000
        train(batch_size)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
