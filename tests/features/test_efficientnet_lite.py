import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageDraw

from captioning.features.efficientnet_lite import EfficientNetLite
from captioning.features.encoder import Encoder
from captioning.features.weights import packaged_file, read_state_dict


@pytest.fixture(scope="module")
def reference():
    model = EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(read_state_dict(packaged_file("efficientnet_lite0")))
    return model


@pytest.fixture(scope="module")
def lite0():
    return Encoder("efficientnet_lite0", "package", features="grid")


def drawing():
    image = Image.new("RGB", (320, 240), "lightblue")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 160, 320, 240), fill="green")
    draw.ellipse((100, 60, 220, 180), fill="red", outline="black", width=4)
    return image


@pytest.mark.parametrize("picture", ["noise", "drawing"])
@torch.no_grad()
def test_features_are_those_of_the_published_network(lite0, reference, picture):
    noise = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = noise if picture == "noise" else lite0.preprocess(drawing())[None]
    expected = reference.extract_features(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(lite0(images).clone(), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_logits_are_those_of_the_published_network(reference):
    model = EfficientNetLite().eval()
    model.load_state_dict(reference.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(images), reference(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_width_and_depth_make_lite2():
    lite2 = EfficientNet.from_name("efficientnet-lite2").eval()
    model = EfficientNetLite(width=1.1, depth=1.2).eval()
    model.load_state_dict(lite2.state_dict())
    # The reference pads as for 260 pixels; of 68 the halves are even and odd in the same order.
    images = torch.randn(1, 3, 68, 68, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(images), lite2(images), rtol=1e-4, atol=1e-4)


def test_pooled_is_the_mean_of_the_grid(lite0):
    pooled = Encoder("efficientnet_lite0", "package")
    images = lite0.preprocess(drawing())[None]
    assert (lite0.feature_shape, pooled.feature_shape) == ((49, 1280), (1280,))
    torch.testing.assert_close(pooled(images), lite0(images).mean(1), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_lite2_has_its_own_weights_and_size():
    reference = EfficientNet.from_name("efficientnet-lite2").eval()
    reference.load_state_dict(read_state_dict(packaged_file("efficientnet_lite2")))
    lite2 = Encoder("efficientnet_lite2", "package", features="grid")
    images = lite2.preprocess(drawing())[None]
    expected = reference.extract_features(images).flatten(2).transpose(1, 2)
    assert lite2.feature_shape == (81, 1280)
    torch.testing.assert_close(lite2(images).clone(), expected, rtol=1e-3, atol=1e-3)
