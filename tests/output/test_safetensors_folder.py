import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioning import UserError
from captioning.captioner import Captioner
from captioning.data.vocabulary import SPECIALS
from captioning.features.encoder import Encoder, build_classifier
from captioning.models.lstm import LSTMDecoder
from captioning.output.safetensors_folder import read_pretrained, write_pretrained

WORDS = [*SPECIALS, "a", "red", "square"]
MODEL = {"_target_": "captioning.models.lstm.LSTMDecoder", "embed_dim": 8, "hidden_dim": 8}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder, the encoder's original weights beside it, and the decoder that went in."""
    root = tmp_path_factory.mktemp("exported")
    torch.save(build_classifier("resnet18", 32).state_dict(), root / "mine.pth")
    encoder = Encoder("resnet18", str(root / "mine.pth"), image_size=32)
    torch.manual_seed(0)
    decoder = LSTMDecoder(len(WORDS), 512, 8, 8, tied=True)
    checkpoint = {
        "captioning": {
            "format_version": 1,
            "vocabulary": WORDS,
            "encoder": encoder.identity,
            "config": {"model": {**MODEL, "tied": True}},
        },
        "state_dict": {f"decoder.{key}": value for key, value in decoder.state_dict().items()},
    }
    folder = root / "folder"
    folder.mkdir()
    write_pretrained(folder, checkpoint, 512, str(root / "mine.pth"))
    return folder, encoder, decoder.eval()


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to spoil."""
    for path in exported[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def spoil(folder, **changes):
    """Change config.json; a dotted key is one inside."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            config[outer][inner] = value
        else:
            config[outer] = value
    path.write_text(json.dumps(config))


def test_what_comes_out_captions_as_what_went_in(exported):
    folder, encoder, decoder = exported
    captioner = Captioner.from_pretrained(folder)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = Captioner(encoder, decoder, captioner.vocabulary).captions_of(images)
    assert captioner.captions_of(images) == expected
    assert captioner.vocabulary.words == WORDS


def test_the_folder_needs_nothing_else_on_the_machine(exported):
    folder, _, _ = exported
    (folder.parent / "mine.pth").rename(folder.parent / "gone")
    Captioner.from_pretrained(folder)
    (folder.parent / "gone").rename(folder.parent / "mine.pth")


def test_no_pickle_is_read(exported, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    Captioner.from_pretrained(exported[0])
    assert {path.suffix for path in exported[0].iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model___target_": "os.system"}, "os.system is not a class of captioning.models"),
        ({"model___target_": "captioning.models.lstm.nn"}, "not a class of captioning.models"),
        ({"model___partial_": True}, "model._partial_ is not a plain value"),
        ({"model__hidden_dim": {"_target_": "os.system"}}, "hidden_dim is not a plain value"),
        ({"model__dropout": "${oc.env:HOME}"}, "model.dropout is not a plain value"),
        ({"model__hidden_dim": "8"}, "does not fit its config.json"),
        ({"model__hidden_dim": 10**9}, "hidden_dim=1000000000 is more than its weights have"),
        ({"model__num_layers": 10**9}, "num_layers=1000000000 is more than its weights"),
        ({"model__num_layers": -1}, "num_layers=-1"),
        ({"model__hidden_dim": 16}, "is not of the size that its config says"),
        ({"model__hidden_dims": 8}, "hidden_dims"),
        ({"feature_dim": 10**12}, "feature_dim=1000000000000"),
        ({"feature_dim": True}, "feature_dim is of the wrong type"),
        ({"vocabulary": "words"}, "vocabulary is of the wrong type"),
        ({"vocabulary": [*WORDS[:-1], 7]}, "vocabulary holds more than words"),
        ({"vocabulary": WORDS[1:]}, "is not of the size"),
        ({"vocabulary": ["x", *WORDS[1:]]}, "a vocabulary starts with <pad>"),
        ({"encoder__name": "os"}, "there is no encoder 'os'"),
        ({"encoder__name": ["resnet18"]}, "name is of the wrong type"),
        ({"encoder__image_size": 10**6}, "image_size is 1000000, not 1 to 1024"),
        ({"encoder__features": "all"}, "encoder.features=all"),
        ({"encoder__weights": "0" * 64}, "was trained on features of"),
        ({"encoder_weights": "../mine.safetensors"}, "lacks the encoder's weights"),
        ({"encoder_weights": "gone.safetensors"}, "lacks the encoder's weights"),
        ({"format_version": 99}, "format version is 99"),
        ({"more": 1}, "does not hold just"),
    ],
)
def test_a_config_that_does_not_add_up_is_refused(folder, changes, told):
    spoil(folder, **changes)
    with pytest.raises(UserError) as refused:
        Captioner.from_pretrained(folder)
    assert told in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": ' * 100_000, "\udcff"])
def test_a_config_that_is_no_config_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="is not a config of"):
        read_pretrained(folder)


def test_a_config_without_end_is_not_read(folder):
    with (folder / "config.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(UserError, match="it is larger than 16 MB"):
        read_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x80\x04pickle"])
def test_weights_that_are_none_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors does not fit"):
        read_pretrained(folder)


def test_weights_of_another_model_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["output.2.weight"] = weights.pop("lstm.weight_ih_l0")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="is not of the size"):
        read_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"it lacks {name}"):
        read_pretrained(folder)
