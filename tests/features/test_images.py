import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, ResNet50_Weights

from captioning.data.image_files import load_image
from captioning.features import images
from captioning.features.images import Preprocess, read_ahead
from captioning.features.weights import LITES, preprocess_of

LITE0 = LITES["efficientnet_lite0"].preprocess


def stripes(size=(48, 32), left="red", right="blue"):
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def test_a_reduced_scale_hardly_changes_the_input(tmp_path):
    ramp = np.linspace(0, 255, 1300 * 1400 * 3).reshape(1300, 1400, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "photo.jpg", quality=95)
    reduced = LITE0(load_image(tmp_path / "photo.jpg"))
    assert (reduced - LITE0(Image.fromarray(ramp))).abs().mean() < 0.01


@pytest.mark.parametrize(
    "weights", [ResNet50_Weights.IMAGENET1K_V2, EfficientNet_B0_Weights.DEFAULT]
)
def test_with_a_crop_it_is_torchvisions_own_preprocessing(weights):
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (261, 347, 3), np.uint8))
    torch.testing.assert_close(preprocess_of(weights)(image), weights.transforms()(image))


def test_without_a_crop_the_whole_picture_is_seen():
    preprocess = Preprocess(16, None, [0.0] * 3, [1.0] * 3, "bilinear")
    image = preprocess(stripes((200, 50)))
    assert image.shape == (3, 16, 16)
    assert image[:, 8, 0].tolist() == [1, 0, 0]
    assert image[:, 8, -1].tolist() == [0, 0, 1]


def test_a_picture_that_is_passed_in_stays_as_it_was():
    image = stripes().convert("RGBA")
    before = image.copy()
    LITE0(image)
    assert image == before


def test_the_lite_release_reads_pixels_minus_127_over_128():
    image = Image.new("RGB", (8, 8), (127, 255, 0))
    values = LITE0(image)[:, 3, 3]
    torch.testing.assert_close(values, torch.tensor([0.0, 1.0, -127 / 128]))


def test_its_values_survive_json():
    values = asdict(LITE0)
    assert json.loads(json.dumps(values)) == values


def test_pictures_are_read_ahead_in_order_with_reasons_for_gaps(tmp_path):
    colours = ["red", "lime", "blue", "white", "black"]
    for colour in colours:
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "blue.png").write_bytes(b"no picture")
    preprocess = Preprocess(4, None, [0.0] * 3, [1.0] * 3, "bilinear")
    paths = [str(tmp_path / f"{colour}.png") for colour in colours]
    batches = list(read_ahead(paths, preprocess, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert "blue.png cannot be read" in batches[1][0]
    colours = [
        one[:, 0, 0].tolist() for batch in batches for one in batch if one is not batches[1][0]
    ]
    assert colours == [[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_no_picture_is_no_batch():
    assert list(read_ahead([], LITE0, 2)) == []


@pytest.mark.parametrize("size", [(60_000, 1), (20_000, 40), (1, 9000), (3, 30_000)])
def test_a_narrow_image_is_not_blown_up_for_its_crop(monkeypatch, size):
    resize = images.functional.resize

    def small(image, sides, mode):
        assert max(image.size) * sides[0] / min(image.size) < 10_000
        return resize(image, sides, mode)

    monkeypatch.setattr(images.functional, "resize", small)
    image = Image.new("RGB", size, "blue")
    image.paste(
        "red", (*(side // 2 - min(size) for side in size), *(s // 2 + min(size) for s in size))
    )
    cropped = Preprocess(16, 20, [0.0] * 3, [1.0] * 3, "bilinear")(image)
    assert cropped[:, 8, 8].tolist() == [1, 0, 0]


@pytest.mark.parametrize("size", [(300, 200), (97, 131), (801, 100), (80, 640)])
def test_an_image_of_ordinary_shape_is_cropped_as_before(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image, preprocess = Image.fromarray(pixels), Preprocess(32, 40, [0.0] * 3, [1.0] * 3, "bicubic")
    resized = images.functional.resize(image, [40], images.InterpolationMode.BICUBIC)
    expected = images.functional.to_tensor(images.functional.center_crop(resized, [32]))
    assert torch.equal(preprocess(image), expected)
