import json
import pickle

import pytest
import torch
from torch import nn

from captioning import UserError
from captioning.features.encoder import Encoder, build_classifier, cut_before_pooling
from captioning.features.onnx import to_onnx_runtime

SIZE = 64


def noise(images=2, size=SIZE):
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_pooled_features_are_the_input_of_a_resnets_head(tmp_path):
    model = build_classifier("resnet18", SIZE)
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    features = Encoder("resnet18", str(tmp_path / "resnet18.pth"), image_size=SIZE)(noise())
    model.fc = nn.Identity()
    torch.testing.assert_close(features, model(noise()), rtol=1e-4, atol=1e-4)


def test_grid_features_are_the_regions_row_by_row():
    grid = Encoder("resnet18", None, "grid", 96)
    assert grid.feature_shape == (9, 512)
    images = torch.zeros(1, 3, 96, 96)
    changed = images.clone()
    changed[:, :, :8, 88:] = 3  # the upper right corner
    difference = (grid(changed) - grid(images)).abs().sum(-1)[0]
    assert difference.argmax() == 2


CHANNELS = {"alexnet": 256, "densenet121": 1024, "regnet_y_400mf": 440, "googlenet": 1024}
CHANNELS |= {"mobilenet_v3_small": 576, "efficientnet_b0": 1280, "shufflenet_v2_x0_5": 1024}
LARGE = {"vgg11": 512, "convnext_tiny": 768, "swin_t": 768}


@pytest.mark.parametrize(
    ("name", "channels"),
    [*CHANNELS.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in LARGE.items())],
)
@torch.no_grad()
def test_networks_are_cut_at_their_last_map(name, channels):
    maps = cut_before_pooling(build_classifier(name, 128))(noise(1, 128))
    assert maps.shape[:2] == (1, channels)
    assert maps.ndim == 4 and maps.shape[2] > 1


@pytest.mark.slow
def test_a_vit_has_a_class_token_but_no_grid():
    assert Encoder("vit_b_32", None, image_size=64).feature_shape == (768,)
    with pytest.raises(UserError, match=r"vit_b_32 has no map of regions; type .*pooled"):
        Encoder("vit_b_32", None, "grid", image_size=64)


def test_random_weights_are_the_same_in_every_run_and_leave_the_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = Encoder("resnet18", None, image_size=SIZE)
    assert torch.rand(1) == expected
    second = Encoder("resnet18", "none", image_size=SIZE)
    assert first.identity == second.identity
    assert torch.equal(first(noise()), second(noise()))


def test_the_encoder_stays_frozen_in_a_module_that_trains(encoder):
    nn.Sequential(encoder, nn.Dropout()).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    images = noise(3)
    features = encoder(images)
    assert not features.requires_grad
    torch.testing.assert_close(features[1], encoder(images[1:2])[0], rtol=1e-4, atol=1e-4)


def test_the_identity_is_plain_and_names_all_that_decides_the_numbers(encoder):
    assert json.loads(json.dumps(encoder.identity)) == encoder.identity
    names = "name weights features crop image_size resize mean std interpolation"
    assert set(encoder.identity) == set(names.split())


@pytest.mark.parametrize(
    "changed", [{"features": "grid"}, {"image_size": 96}, {"crop": True}, {"name": "resnet34"}]
)
def test_each_choice_changes_the_identity(encoder, changed):
    options = {"name": "resnet18", "weights": None, "image_size": 32}
    assert Encoder(**(options | changed)).identity != encoder.identity


def test_a_crop_keeps_its_share_at_another_size():
    assert Encoder("resnet18", None, image_size=112, crop=True).preprocess.resize == 128


def test_an_encoder_can_be_pickled(encoder):
    copy = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(copy(noise()), encoder(noise()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"features": "both"}, r"encoder\.features=both: must be pooled or grid"),
        ("inception_v3", {"image_size": 32}, "inception_v3 cannot read 32 x 32 pixels"),
        ("mobilenet_v3_small", {"image_size": SIZE}, "makes no usable features"),
    ],
)
def test_what_makes_no_features_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        Encoder(name, None, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("resnet50", None, "pooled"), ("efficientnet_lite0", "package", "grid")]
)
def test_onnx_runtime_gives_the_same_features(arguments):
    encoder = Encoder(*arguments, image_size=64)
    images = noise(3)
    expected = encoder(images)
    encoder.prepare_for(10)  # few images are encoded by torch
    assert not encoder._onnx_runtime
    encoder.prepare_for(5000)
    assert encoder._onnx_runtime
    tolerance = 1e-4 * expected.abs().max().item()
    torch.testing.assert_close(encoder(images), expected, rtol=0, atol=tolerance)


def test_onnx_runtime_is_for_the_cpu_only():
    encoder = Encoder("resnet18", None, image_size=32)
    encoder.prepare_for(5000)
    encoder.to("meta")
    assert encoder(torch.zeros(2, 3, 32, 32)).device.type == "meta"


def test_a_network_that_onnx_cannot_hold_stays_with_torch(caplog, capfd):
    class Untraceable(nn.Module):
        def forward(self, images):
            return images if float(images.sum()) > 0 else -images

    caplog.set_level("INFO")
    assert to_onnx_runtime(nn.Conv2d(3, 4, 3).requires_grad_(False), torch.ones(2, 3, 8, 8))
    assert not caplog.records  # the exporter's own
    assert to_onnx_runtime(Untraceable(), torch.ones(2, 3, 8, 8)) is None
    assert "Untraceable stays with torch" in caplog.text
    assert capfd.readouterr() == ("", "")
