"""The script beside an exported graph preprocesses images as training does."""

import importlib.util
import json
import shutil
import sys
import types
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from profiles import grey_inks, linear_grey, prophoto

import captioning.output
from captioning.data.image_files import load_image
from captioning.features.images import Preprocess


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script as it is shipped, without a graph."""
    source = Path(captioning.output.__path__[0], "onnx_script.py")
    shutil.copy(source, tmp_path / "caption.py")
    preprocess = Preprocess(16, 20, [0.0] * 3, [1.0] * 3, "bicubic")
    (tmp_path / "config.json").write_text(json.dumps({"encoder": asdict(preprocess)}))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "tokenizer", types.SimpleNamespace(detokenize=None))
    spec = importlib.util.spec_from_file_location("caption", tmp_path / "caption.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, preprocess


@pytest.mark.parametrize(
    ("mode", "colour", "size", "profile"),
    [
        ("RGB", (179, 70, 27), (40, 30), b""),
        ("RGB", (179, 70, 27), (40, 30), prophoto()),
        ("L", 55, (40, 30), linear_grey()),
        ("CMYK", (255, 0, 0, 0), (40, 30), grey_inks()),
        ("RGB", (179, 70, 27), (40, 30), grey_inks()),
        ("RGB", (179, 70, 27), (6000, 1), b""),
    ],
)
def test_it_reads_an_image_as_training_does(script, tmp_path, mode, colour, size, profile):
    module, preprocess = script
    Image.new(mode, size, colour).save(tmp_path / "a.tif", icc_profile=profile)
    expected = preprocess(load_image(tmp_path / "a.tif")).permute(1, 2, 0).numpy().astype(float)
    assert np.abs(module.pixels(tmp_path / "a.tif") - expected).max() < 3


def test_a_narrow_image_is_not_blown_up_for_its_crop(script, tmp_path, monkeypatch):
    resize = Image.Image.resize

    def small(image, size, method):
        assert max(size) < 1000
        return resize(image, size, method)

    monkeypatch.setattr(Image.Image, "resize", small)
    Image.new("RGB", (60_000, 1)).save(tmp_path / "a.png")
    assert script[0].pixels(tmp_path / "a.png").shape == (16, 16, 3)
