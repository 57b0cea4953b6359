"""Tiny captioners with random weights, saved as a training saves them."""

import pytest
import torch

from captioning.captioner import Captioner
from captioning.config.build import build_decoder
from captioning.data.vocabulary import SPECIALS
from captioning.features.encoder import Encoder

WORDS = [*SPECIALS, "a", "red", "dog", "runs", "on", "grass", "<i>wet</i>"]


def save_checkpoint(path, name, decoder):
    """Save a checkpoint of a captioner that sees 4 x 4 regions."""
    options = {"name": "resnet18", "weights": None, "features": "grid", "image_size": 128}
    model = {"_target_": f"captioning.models.{name}.{decoder}", "embed_dim": 16, "hidden_dim": 16}
    encoder = Encoder(**options)
    torch.manual_seed(5)
    decoder = build_decoder(model, len(WORDS), encoder.feature_shape[-1])
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.4)  # far from uniform, so that captions differ
    contents = {
        "format_version": 2,
        "vocabulary": WORDS,
        "encoder": encoder.identity,
        "config": {"encoder": options, "model": model, "name": name, "seed": 5},
    }
    weights = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    torch.save({"epoch": 0, "state_dict": weights, "captioning": contents}, path)
    return path


@pytest.fixture(scope="package")
def checkpoints(tmp_path_factory):
    """Paths of a captioner with attention and of one without."""
    folder = tmp_path_factory.mktemp("runs, x=1")
    return [
        save_checkpoint(folder / "attention.ckpt", "attention", "AttentionDecoder"),
        save_checkpoint(folder / "lstm.ckpt", "lstm", "LSTMDecoder"),
    ]


@pytest.fixture(scope="package")
def captioners(checkpoints):
    return {path.stem: Captioner.from_checkpoint(path) for path in checkpoints}
