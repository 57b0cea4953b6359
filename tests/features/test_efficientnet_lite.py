import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageDraw

from captioning.features.encoder import Encoder
from captioning.features.weights import find_weights, read_state_dict


@pytest.fixture(scope="module")
def drawing():
    image = Image.new("RGB", (320, 240), "lightblue")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 160, 320, 240), fill="green")
    draw.ellipse((100, 60, 220, 180), fill="red", outline="black", width=4)
    return image


@pytest.mark.parametrize(
    ("name", "shape", "tolerance"),
    [("efficientnet-lite0", (49, 1280), 1e-4), ("efficientnet-lite2", (81, 1280), 1e-3)],
)
@torch.no_grad()
def test_features_are_those_of_the_published_network(drawing, name, shape, tolerance):
    reference = EfficientNet.from_name(name).eval()
    name = name.replace("-", "_")
    reference.load_state_dict(read_state_dict(find_weights(name, "package")[0]))
    encoder = Encoder(name, "package", features="grid")
    assert encoder.feature_shape == shape
    # The reference pads as for its own size; of 64 and 68 the halves are even and odd alike.
    size = 64 if name.endswith("0") else 68
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    normalize = encoder.preprocess.normalize
    for images in (noise, normalize(encoder.preprocess(drawing)[None])):
        expected = reference.extract_features(images).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder(images), expected, rtol=tolerance, atol=tolerance)


def test_pooled_is_the_mean_of_the_grid(drawing):
    grid, pooled = (
        Encoder("efficientnet_lite0", "package", features) for features in ("grid", "pooled")
    )
    images = grid.preprocess(drawing)[None]
    torch.testing.assert_close(pooled(images), grid(images).mean(1), rtol=1e-5, atol=1e-6)
