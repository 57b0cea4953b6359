"""Twenty steps of training on eight coloured squares, on a CPU or a GPU."""

import pytorch_lightning as pl
import torch

from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.models.transformer import TransformerDecoder
from captioning.models.updown import UpDownDecoder
from captioning.training.module import CaptioningModule

DECODERS = {  # the class, options without dropout
    "lstm": (LSTMDecoder, {}),
    "lstm, two layers, tied": (LSTMDecoder, {"num_layers": 2, "tied": True}),
    "lstm, image first": (LSTMDecoder, {"inject": "pre"}),
    "lstm, image beside": (LSTMDecoder, {"inject": "par"}),
    "attention": (AttentionDecoder, {}),
    "updown": (UpDownDecoder, {}),
    "transformer": (TransformerDecoder, {}),
    "merge": (MergeDecoder, {}),
}
NEEDS_GRID = ("attention", "updown", "transformer")
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "gradient_clip_val": 5.0,
    "use_distributed_sampler": False,
}


def make_decoder(name, data, **options):
    kind, own = DECODERS[name]
    torch.manual_seed(0)
    sizes = {"vocabulary_size": len(data.vocabulary), "feature_dim": data.store.shape[-1]}
    return kind(**sizes, hidden_dim=64, **({"dropout": 0.0} | own | options))


class Losses(pl.Callback):
    """Collects the losses on their device, and the precisions of hidden states."""

    def __init__(self):
        self.losses, self.dtypes = [], set()

    def on_fit_start(self, trainer, pl_module):
        decode = pl_module.decoder.decode

        def recorded(tokens, state):
            hidden, state = decode(tokens, state)
            self.dtypes.add(hidden.dtype)
            return hidden, state

        pl_module.decoder.decode = recorded

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, index):
        self.losses.append(outputs["loss"].detach().clone())


def fit(data, decoder, *callbacks, make_module=CaptioningModule, ckpt_path=None, **options):
    """Train for ten epochs; return the module and the losses."""
    torch.manual_seed(1)
    module = make_module(decoder, {"vocabulary": data.vocabulary.words})
    losses = Losses()
    options = {"max_epochs": 10, "accelerator": "gpu", "devices": 1, **QUIET} | options
    trainer = pl.Trainer(callbacks=[losses, *callbacks], **options)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return module, [loss.item() for loss in losses.losses], losses.dtypes
