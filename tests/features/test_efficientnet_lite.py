import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageDraw

from captioning.features.efficientnet_lite import EfficientNetLite
from captioning.features.encoder import Encoder
from captioning.features.weights import find_weights, read_state_dict


def load_reference(name):
    model = EfficientNet.from_name(name).eval()
    model.load_state_dict(read_state_dict(find_weights(name.replace("-", "_"), "package")[0]))
    return model


@pytest.fixture(scope="module")
def reference():
    return load_reference("efficientnet-lite0")


@pytest.fixture(scope="module")
def lite0():
    return Encoder("efficientnet_lite0", "package", features="grid")


@pytest.fixture(scope="module")
def drawing():
    image = Image.new("RGB", (320, 240), "lightblue")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 160, 320, 240), fill="green")
    draw.ellipse((100, 60, 220, 180), fill="red", outline="black", width=4)
    return image


def noise(images, size):
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_features_equal(encoder, reference, images, tolerance):
    expected = reference.extract_features(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(images).clone(), expected, rtol=tolerance, atol=tolerance)


def test_features_are_those_of_the_published_network(lite0, reference, drawing):
    assert_features_equal(lite0, reference, noise(2, 64), 1e-4)
    assert_features_equal(lite0, reference, lite0.preprocess(drawing)[None], 1e-4)


def test_lite2_has_its_own_weights_and_size(drawing):
    lite2 = Encoder("efficientnet_lite2", "package", features="grid")
    assert lite2.feature_shape == (81, 1280)
    reference = load_reference("efficientnet-lite2")
    assert_features_equal(lite2, reference, lite2.preprocess(drawing)[None], 1e-3)


@pytest.mark.parametrize(("name", "width", "depth"), [("lite0", 1.0, 1.0), ("lite2", 1.1, 1.2)])
@torch.no_grad()
def test_logits_are_those_of_the_published_network(name, width, depth):
    reference = EfficientNet.from_name(f"efficientnet-{name}").eval()
    model = EfficientNetLite(width, depth).eval()
    model.load_state_dict(reference.state_dict())
    # The reference pads as for its own size; of 64 and 68 the halves are even and odd alike.
    images = noise(1, 64 if name == "lite0" else 68)
    torch.testing.assert_close(model(images), reference(images), rtol=1e-4, atol=1e-4)


def test_pooled_is_the_mean_of_the_grid(lite0, drawing):
    pooled = Encoder("efficientnet_lite0", "package")
    images = lite0.preprocess(drawing)[None]
    assert (lite0.feature_shape, pooled.feature_shape) == ((49, 1280), (1280,))
    torch.testing.assert_close(pooled(images), lite0(images).mean(1), rtol=1e-5, atol=1e-6)
