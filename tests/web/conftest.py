"""Tiny captioners with random weights, saved as a training saves them."""

import pytest
import torch

from captioning.captioner import Captioner
from captioning.config.build import build_decoder
from captioning.data.vocabulary import SPECIALS
from captioning.features.encoder import Encoder

WORDS = [*SPECIALS, "a", "red", "dog", "runs", "on", "grass", "<i>wet</i>"]


def saved(path, name, **model):
    """Save a checkpoint; its encoder sees 4 x 4 regions."""
    options = {"name": "resnet18", "weights": None, "features": "grid", "image_size": 128}
    encoder = Encoder(**options)
    torch.manual_seed(5)
    decoder = build_decoder(model, len(WORDS), encoder.feature_shape[-1])
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.4)  # sure of itself, and not always of the same
    contents = {
        "format_version": 1,
        "vocabulary": WORDS,
        "encoder": encoder.identity,
        "config": {"encoder": options, "model": model, "name": name, "seed": 5},
    }
    weights = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    torch.save({"epoch": 0, "state_dict": weights, "captioning": contents}, path)
    return path


@pytest.fixture(scope="package")
def checkpoints(tmp_path_factory):
    """Paths of one that looks at regions and of one that does not."""
    folder = tmp_path_factory.mktemp("runs, x=1")
    sizes = {"embed_dim": 16, "hidden_dim": 16}
    return [
        saved(
            folder / f"{name}.ckpt",
            name,
            _target_=f"captioning.models.{name}.{decoder}",
            **sizes,
        )
        for name, decoder in (("attention", "AttentionDecoder"), ("lstm", "LSTMDecoder"))
    ]


@pytest.fixture(scope="package")
def captioners(checkpoints):
    return {path.stem: Captioner.from_checkpoint(path) for path in checkpoints}
