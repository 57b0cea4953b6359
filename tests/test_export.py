"""The command, as a user runs it, on the checkpoint of test_train.py."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from stores import TinyStore
from verbs import run

from captioning.caption import main as caption
from captioning.captioner import Captioner, confidence_path
from captioning.checkpoint import read_checkpoint
from captioning.data.records import Record
from captioning.data.vocabulary import Vocabulary
from captioning.export import main
from captioning.metrics.confidence import Confidence
from captioning.models.old_names import decoder_sha256
from captioning.search.beam import greedy_search

COMMAND = "captioning.export"
ALONE = """
import os, runpy, sys
for name in ("torch", "captioning", "torchvision"):
    sys.modules[name] = None  # whoever imports it fails
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(trained, folder):
    """The folders of both formats, made by real processes."""
    shutil.copytree(trained[1], folder / "elsewhere", dirs_exist_ok=True)
    for kind in ("onnx", "safetensors"):
        done = run(folder, "elsewhere/best.ckpt", f"format={kind}", module=COMMAND)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert f"elsewhere/best-{kind}:" in done.stdout
    return folder / "elsewhere"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    stripes = Image.new("RGB", (700, 400), "red")
    stripes.paste("blue", (350, 0, 700, 400))
    stripes.save(root / "large.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    stripes.save(root / "turned.jpg", exif=exif)
    Image.new("RGBA", (50, 40), (0, 128, 0, 90)).save(root / "clear.png")
    Image.new("CMYK", (50, 40), (0, 255, 0, 0)).save(root / "print.jpg")
    Image.new("I;16", (50, 40), 30000).save(root / "deep.png")
    return sorted(root.iterdir())


@pytest.mark.slow
def test_onnx_runtime_alone_says_the_same(exported, images, trained):
    captioner = Captioner.from_checkpoint(trained[1] / "best.ckpt")
    captioner.search = greedy_search
    runner = exported / "best-onnx" / "caption.py"
    typed = [images[0], runner, *images[1:]]  # one of them is no image
    done = subprocess.run(
        [sys.executable, "-c", ALONE, runner, *typed], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"error: .*caption\.py cannot be read as an image: .*\n", done.stderr)
    assert done.stdout == "".join(f"{path}\t{captioner(path)}\n" for path in images)


@pytest.mark.slow
def test_without_an_image_the_script_says_how_to_call_it(exported):
    command = [sys.executable, "-c", ALONE, exported / "best-onnx" / "caption.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Caption images with numpy") and "caption.py IMAGE" in done.stderr


@pytest.mark.slow
def test_the_safetensors_folder_says_the_same(exported, images, trained, capsys):
    captioner = Captioner.from_checkpoint(trained[1] / "best.ckpt")
    elsewhere = Captioner.from_pretrained(exported / "best-safetensors")
    assert elsewhere.captions(images) == captioner.captions(images)
    assert caption([f"ckpt={exported / 'best-safetensors'}", str(images[0])]) == 0
    assert capsys.readouterr().out == f"{images[0]}\t{captioner(images[0])}\n"


@pytest.mark.slow
def test_the_card_has_the_scores_of_the_run(exported):
    card = " ".join((exported / "best-safetensors" / "README.md").read_text().split())
    run_json = json.loads((exported / "run.json").read_text())
    assert f"| cider | {100 * run_json['metrics']['val/cider']:.1f} |" in card
    assert "captioning.train data=folder" in card
    assert "its worst validation captions by `semantic`" in card
    assert "Licence: not known to this program" in card


@pytest.mark.slow
def test_a_folder_that_holds_something_is_not_touched(trained, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    arguments = [f"ckpt={trained[1] / 'best.ckpt'}", "format=safetensors", f"out={tmp_path}"]
    assert main(arguments) == 1
    assert "is there and not empty; delete it or type another out=" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("of_same_config", [False, True])
def test_an_evaluation_of_another_checkpoint_is_refused(trained, tmp_path, capsys, of_same_config):
    checkpoint = read_checkpoint(trained[1] / "best.ckpt")
    contents = checkpoint["captioning"]
    other = {key: contents["config"][key] for key in ("model", "seed")}
    other |= {"epoch": checkpoint["epoch"], "encoder": contents["encoder"], "decoder": "of others"}
    other["vocabulary_sha256"] = Vocabulary(contents["vocabulary"]).sha256
    systems = [{"label": "lstm", "checkpoints": [other]}] if of_same_config else []
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"systems": systems, "rows": [{"system": "lstm"}]}))
    arguments = [f"ckpt={trained[1] / 'best.ckpt'}", f"out={tmp_path / 'out'}", f"scores={scores}"]
    assert main([*arguments, "format=safetensors"]) == 1
    assert "has no scores of this checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_onnx_in_int8_is_refused(capsys):
    assert main(["nowhere", "format=onnx", "dtype=int8"]) == 1
    assert "dtype=int8 is of format=safetensors" in capsys.readouterr().err


def test_an_exported_folder_is_not_exported_again(capsys):
    assert main(["default", "format=onnx"]) == 1
    assert "default is an exported folder already; export takes" in capsys.readouterr().err


def test_a_missing_checkpoint_is_a_sentence(capsys):
    assert main(["nowhere", "format=onnx"]) == 1
    assert "there is no checkpoint nowhere" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_confidence_goes_along(trained, tmp_path, dtype):
    ckpt = Path(shutil.copy(trained[1] / "best.ckpt", tmp_path))
    captioner = Captioner.from_checkpoint(ckpt)
    features = torch.rand(20, *captioner.encoder.feature_shape)
    records = [Record(str(at), "", ("a red square",), "train") for at in range(20)]
    decoder = decoder_sha256(captioner.decoder)
    confidence = Confidence.fit(records, TinyStore(features), decoder)
    captions = ["a red square"] * 20
    confidence.calibrate(-torch.rand(20), features, captions, torch.rand(20))
    confidence.save(confidence_path(ckpt))
    options = ["format=safetensors", f"out={tmp_path / 'out'}", f"dtype={dtype}"]
    assert main([str(ckpt), *options]) == 0
    again = Captioner.from_pretrained(tmp_path / "out").confidence_model
    arguments = -torch.rand(20), features, captions
    assert torch.equal(again(*arguments), confidence(*arguments))
