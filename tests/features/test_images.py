import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, ResNet50_Weights

from captioning.data.image_files import load_image
from captioning.features.images import Preprocess, read_ahead
from captioning.features.weights import find_weights, published_weights

LITE0 = find_weights("efficientnet_lite0", "package")[1]
ZERO, ONE = [0.0] * 3, [1.0] * 3


def noise_image(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_a_reduced_scale_hardly_changes_the_input(tmp_path):
    ramp = np.linspace(0, 255, 1300 * 1400 * 3).reshape(1300, 1400, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "photo.jpg", quality=95)
    reduced = LITE0(load_image(tmp_path / "photo.jpg"))
    expected = LITE0(Image.fromarray(ramp))
    assert (reduced.int() - expected.int()).abs().float().mean() < 1.3


@pytest.mark.parametrize("size", [(300, 200), (97, 131), (801, 100), (80, 640)])
@pytest.mark.parametrize(
    ("name", "short_name", "weights"),
    [
        ("resnet50", "imagenet_v2", ResNet50_Weights.IMAGENET1K_V2),
        ("efficientnet_b0", "imagenet_v1", EfficientNet_B0_Weights.DEFAULT),
    ],
)
def test_a_crop_is_torchvisions_own_preprocessing(name, short_name, weights, size):
    image = noise_image(*size)
    preprocess = published_weights(name)[short_name].preprocess
    found = preprocess.normalize(preprocess(image)[None])[0]
    assert torch.equal(found, weights.transforms()(image))


def test_without_a_crop_the_whole_image_is_resized():
    image = Image.new("RGB", (200, 50), "red")
    image.paste("blue", (100, 0, 200, 50))
    values = Preprocess(16, None, ZERO, ONE, "bilinear")(image)
    assert values.shape == (3, 16, 16)
    assert values[:, 8, [0, -1]].T.tolist() == [[255, 0, 0], [0, 0, 255]]


def test_the_lite_release_reads_pixels_minus_127_over_128():
    values = LITE0.normalize(LITE0(Image.new("RGB", (8, 8), (127, 255, 0)))[None])[0, :, 3, 3]
    torch.testing.assert_close(values, torch.tensor([0.0, 1.0, -127 / 128]))


def test_images_are_read_ahead_in_order_with_reasons_for_unreadable_ones(tmp_path):
    paths = [tmp_path / f"{colour}.png" for colour in ("red", "lime", "blue", "white", "black")]
    for path in paths:
        Image.new("RGB", (8, 8), path.stem).save(path)
    (tmp_path / "blue.png").write_bytes(b"no image")
    preprocess = Preprocess(4, None, ZERO, ONE, "bilinear")
    assert list(read_ahead([], preprocess, 2)) == []
    batches = list(read_ahead([*map(str, paths)], preprocess, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    images = [image for batch in batches for image in batch]
    assert "blue.png cannot be read" in images.pop(2)
    assert [image[:, 0, 0].tolist() for image in images] == [
        [255, 0, 0],
        [0, 255, 0],
        [255] * 3,
        [0] * 3,
    ]


@pytest.mark.parametrize("size", [(60_000, 1), (20_000, 40), (1, 9000), (3, 30_000)])
def test_a_narrow_image_is_not_enlarged_for_its_crop(monkeypatch, size):
    resize = Image.Image.resize

    def checked_resize(image, sides, method):
        assert max(sides) < 1000
        return resize(image, sides, method)

    monkeypatch.setattr(Image.Image, "resize", checked_resize)
    image = Image.new("RGB", size, "blue")
    width, height, short = *size, min(size)
    x, y = width // 2, height // 2
    image.paste("red", (x - short, y - short, x + short, y + short))
    assert Preprocess(16, 20, ZERO, ONE, "bilinear")(image)[:, 8, 8].tolist() == [255, 0, 0]
