import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioning import UserError
from captioning.captioner import Captioner
from captioning.checkpoint import read_model, read_pretrained
from captioning.data.vocabulary import SPECIALS
from captioning.features.encoder import Encoder, build_classifier
from captioning.models.lstm import LSTMDecoder
from captioning.models.stored_weights import dequantize, quantize
from captioning.output.safetensors_folder import write_pretrained

WORDS = [*SPECIALS, "a", "red", "square"]
MODEL = {"_target_": "captioning.models.lstm.LSTMDecoder", "embed_dim": 8, "hidden_dim": 8}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder, and the encoder and the decoder that were exported."""
    root = tmp_path_factory.mktemp("exported")
    torch.save(build_classifier("resnet18", 32).state_dict(), root / "mine.pth")
    encoder = Encoder("resnet18", str(root / "mine.pth"), image_size=32)
    torch.manual_seed(0)
    decoder = LSTMDecoder(len(WORDS), 512, 8, 8, tied=True)
    checkpoint = {
        "captioning": {
            "format_version": 2,
            "vocabulary": WORDS,
            "encoder": encoder.identity,
            "config": {"model": {**MODEL, "tied": True}, "name": "tiny", "seed": 3},
        },
        "epoch": 7,
        "state_dict": {f"decoder.{key}": value for key, value in decoder.state_dict().items()},
    }
    for dtype in ("float32", "int8"):
        (root / dtype).mkdir()
        write_pretrained(root / dtype, checkpoint, 512, str(root / "mine.pth"), dtype)
    (root / "mine.pth").unlink()
    return root / "float32", encoder, decoder.eval()


def copy_to_spoil(source, folder):
    """Copy a folder of which model.safetensors may be changed."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sha256": None}))
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to spoil."""
    return copy_to_spoil(exported[0], tmp_path / "folder")


def test_it_captions_as_what_was_exported_without_reading_a_pickle(exported, monkeypatch):
    folder, encoder, decoder = exported
    monkeypatch.setattr(torch, "load", None)
    captioner = Captioner.from_pretrained(folder)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    expected = Captioner(encoder, decoder, captioner.vocabulary).captions_of(images)
    assert captioner.captions_of(images) == expected
    assert captioner.vocabulary.words == WORDS
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_it_keeps_the_name_seed_and_epoch_of_its_run(exported):
    checkpoint = read_pretrained(exported[0])
    config = checkpoint["captioning"]["config"]
    assert (config["name"], config["seed"], checkpoint["epoch"]) == ("tiny", 3, 7)


def test_int8_weights_are_within_half_a_step_of_their_row(exported):
    folder, _, decoder = exported
    weights = load_file(folder.with_name("int8") / "model.safetensors")
    loaded = Captioner.from_pretrained(folder.with_name("int8")).decoder.state_dict()
    for key, expected in decoder.state_dict().items():
        if expected.dim() < 2:
            torch.testing.assert_close(loaded[key], expected, rtol=0, atol=0)
            continue
        assert weights[key].dtype == torch.int8
        step = expected.abs().amax(1, keepdim=True) / 127
        assert ((loaded[key] - expected).abs() <= 0.501 * step).all()


def test_weights_that_were_damaged_are_refused(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "folder")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        read_pretrained(folder)


def test_rows_of_zeros_stay_zeros():
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    assert dequantize(quantize(weights))["a"].tolist() == weights["a"].tolist()


@pytest.mark.parametrize(
    ("scale", "error"), [(None, "KeyError"), (torch.ones(1, 9), "ValueError scale.output.weight")]
)
def test_a_scale_that_does_not_fit_is_a_sentence(exported, tmp_path, scale, error):
    folder = copy_to_spoil(exported[0].with_name("int8"), tmp_path / "folder")
    weights = load_file(folder / "model.safetensors")
    del weights["scale.output.weight"]
    if scale is not None:
        weights["scale.output.weight"] = scale
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"export: {error}"):
        read_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model___target_": "os.system"}, "os.system is not a class of captioning.models"),
        ({"model___target_": "captioning.models.lstm.nn"}, "not a class of captioning.models"),
        ({"model___partial_": True}, "model._partial_ is not a plain value"),
        ({"model__hidden_dim": {"_target_": "os.system"}}, "hidden_dim is not a plain value"),
        ({"model__dropout": "${oc.env:HOME}"}, "model.dropout is not a plain value"),
        ({"model__hidden_dim": "8"}, "hidden_dim=8: it is a whole number"),
        ({"model__hidden_dim": 10**9}, "hidden_dim=1000000000 is more than its weights have"),
        ({"model__num_layers": -1}, "num_layers=-1"),
        ({"model__hidden_dim": 16}, "is not of the size that its config says"),
        ({"model__hidden_dims": 8}, "hidden_dims"),
        ({"vocabulary": "words"}, "it has no format version, vocabulary"),
        ({"vocabulary": WORDS[1:]}, "is not of the size"),
        ({"vocabulary": ["x", *WORDS[1:]]}, "a vocabulary starts with <pad>"),
        ({"encoder__name": "os"}, "there is no encoder 'os'"),
        ({"encoder__name": ["resnet18"]}, "name=['resnet18']: it is text"),
        ({"encoder__image_size": 10**6}, "encoder.image_size=1000000: it is 1 to 1024"),
        ({"encoder__features": "all"}, "encoder.features=all"),
        ({"encoder__weights": "0" * 64}, "was trained on features of"),
        ({"encoder_weights": "../outside.safetensors"}, "folder/outside.safetensors: there is no"),
        ({"encoder_weights": 3}, "is not a folder of captioning.export"),
    ],
)
def test_a_config_that_does_not_add_up_is_refused(folder, changes, message):
    """A key with __ is one inside."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        config[outer] = config[outer] | {inner: value} if inner else value
    (folder / "config.json").write_text(json.dumps(config))
    (folder.parent / "outside.safetensors").touch()
    with pytest.raises(UserError) as refused:
        Captioner.from_pretrained(folder)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"", "JSONDecodeError"),
        ("config.json", b"[]", "TypeError"),
        ("config.json", b'{"a": ' * 100_000, "RecursionError"),
        ("config.json", b"\xff", "UnicodeDecodeError"),
        ("config.json", b" " * (17 << 20), r"config\.json is larger than 16 MB"),
        ("model.safetensors", b"\xff" * 64, "header too large"),
        ("model.safetensors", b"\x80\x04pickle", "header too large"),
        ("model.safetensors", None, r"FileNotFoundError .*model\.safetensors"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_that_is_missing_or_damaged_is_named(folder, file, content, message):
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=rf"is not a folder of captioning\.export: .*{message}"):
        read_pretrained(folder)


def test_a_folder_without_a_captioner_is_told_from_a_damaged_one(tmp_path):
    with pytest.raises(UserError, match=r"holds no captioner; type a run's best\.ckpt, or"):
        read_model(tmp_path)
    with pytest.raises(UserError, match="no checkpoint is named; type a path, or default"):
        read_model("")


def test_weights_of_another_model_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["output.2.weight"] = weights.pop("lstm.weight_ih_l0")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="is not of the size"):
        Captioner.from_pretrained(folder)
