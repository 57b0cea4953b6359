"""The script beside an exported graph reads images as training does, and survives bad ones."""

import importlib
import json
import sys
import zlib
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from PIL import Image, PngImagePlugin
from profiles import grey_inks, linear_grey, prophoto

from captioning.data.image_files import load_image
from captioning.features.images import Preprocess
from captioning.output.export_folder import write_script

TURNED, LARGE_TEXT = Image.Exif(), PngImagePlugin.PngInfo()
TURNED[0x0112] = 6
LARGE_TEXT.add(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 * PngImagePlugin.MAX_TEXT_CHUNK)))
FRAMES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
KINDS = {  # mode, ending, options
    "turned": ("RGB", "jpg", {"exif": TURNED}),
    "wide gamut": ("RGB", "tif", {"icc_profile": prophoto()}),
    "grey": ("L", "tif", {"icc_profile": linear_grey()}),
    "inks": ("CMYK", "tif", {"icc_profile": grey_inks()}),
    "no such inks": ("RGB", "tif", {"icc_profile": grey_inks()}),
    "16 bits": ("I;16", "png", {}),
    "one bit": ("1", "png", {}),
    "palette": ("P", "png", {"transparency": 7}),
    "clear": ("RGBA", "webp", {"lossless": True}),
    "clear grey": ("LA", "png", {}),
    "animated": ("RGB", "gif", {"save_all": True, "append_images": FRAMES}),
    "a large text": ("RGB", "png", {"pnginfo": LARGE_TEXT}),
    "heic": ("RGB", "heic", {}),
}


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script as it is shipped, with a graph that says "dog" of every image."""
    folder = tmp_path / "exported"
    folder.mkdir()
    write_script(folder)
    preprocess = Preprocess(16, 20, [0.0] * 3, [1.0] * 3, "bicubic")
    config = {"encoder": asdict(preprocess), "vocabulary": ["<pad>", "<bos>", "<eos>", "", "dog"]}
    (folder / "config.json").write_text(json.dumps(config))
    graph = SimpleNamespace(run=lambda *_: [np.array([[4, 2]])])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: graph)
    monkeypatch.syspath_prepend(folder)
    for name in ("caption", "image_files", "tokenizer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("caption"), preprocess
    for name in ("caption", "image_files", "tokenizer"):
        del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_an_image_as_training_does(script, tmp_path, kind):
    mode, suffix, options = KINDS[kind]
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, len(mode) or 1), np.uint8)
    shown = Image.fromarray(noise.repeat(4, 2)[..., :4], "RGBA")
    if mode == "I;16":
        shown = Image.fromarray(noise[..., 0].astype(np.uint16) * 250)
    elif mode != "RGBA":
        shown = shown.convert("RGB" if mode in ("P", "CMYK", "1") else mode).convert(mode)
    shown.save(path, **options)
    module, preprocess = script
    expected = preprocess(load_image(path)).permute(1, 2, 0).numpy()
    assert (module.pixels(path) == expected).all()


def test_it_goes_on_after_what_cannot_be_read(script, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "holiday").mkdir()
    names = ["a.png", "bad.jpg", "holiday", "missing.jpg", "b.png"]
    assert script[0].main([str(tmp_path / name) for name in names]) == 1
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'a.png'}\tdog\n{tmp_path / 'b.png'}\tdog\n"
    reasons = ("it is of no format that is known here", "Is a directory", "No such file")
    for line, name, reason in zip(err.splitlines(), names[1:4], reasons, strict=True):
        assert line.startswith(f"error: {tmp_path / name} cannot be read as an image: {reason}")
