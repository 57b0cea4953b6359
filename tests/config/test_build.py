import pytest
import torch
from torch import nn

from captioning import UserError
from captioning.config.build import build, build_decoder, build_stored
from captioning.models import merge
from captioning.models.merge import MergeDecoder
from captioning.training.trainer import devices


def test_gpus_null_lets_lightning_choose():
    assert devices({"gpus": None}) == {}


def test_gpus_0_is_the_cpu():
    assert devices({"gpus": 0}) == {"accelerator": "cpu", "devices": 1}


@pytest.mark.parametrize("gpus", [2, -1])
def test_gpus_are_todays_accelerator_and_devices(monkeypatch, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices({"gpus": gpus}) == {"accelerator": "gpu", "devices": gpus}


@pytest.mark.parametrize("gpus", [1, -1])
def test_a_gpu_that_is_not_there_stops_the_run(monkeypatch, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"finds 0 here .* type trainer\.gpus=0"):
        devices({"gpus": gpus})


def test_more_gpus_than_there_are_stops_the_run(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"trainer\.gpus=2"):
        devices({"gpus": 4})


def test_gpus_and_devices_together_are_an_error():
    with pytest.raises(UserError, match="leave out"):
        devices({"gpus": 0, "devices": 2})


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "captioning.training.module.math.sin",
        "captioning.training.module.Nothing",
        "captioning.training.module.Batch",
    ],
)
def test_a_decoder_comes_from_captioning_models_only(target):
    with pytest.raises(UserError, match="not a class of"):
        build_decoder({"_target_": target}, 10, 4)


def test_nothing_inside_a_stored_config_is_made(tmp_path):
    inside = {"_target_": "pathlib.Path.touch", "_args_": [str(tmp_path / "owned")]}
    inside["_args_"] = [{"_target_": "pathlib.Path", "_args_": inside["_args_"]}]
    node = {"_target_": "captioning.data.readers.CaptionFolder", "root": inside}
    with pytest.raises(UserError, match="is not a class of"):
        build_stored(node, "data")
    assert not list(tmp_path.iterdir())


def test_a_decoder_is_a_torch_module():
    with pytest.raises(UserError, match="not a"):
        build_decoder({"_target_": "captioning.training.module.scale_by_word_share"}, 10, 4)


@pytest.mark.parametrize("output", [nn.Linear(8, 10, bias=False), nn.Sequential(), None])
def test_a_decoder_without_a_linear_output_is_refused(monkeypatch, output):
    """Where the loss would stop with a traceback."""

    class Decoder(MergeDecoder):
        def __init__(self, **sizes):
            super().__init__(**sizes)
            self.output = output

    monkeypatch.setattr(merge, "MergeDecoder", Decoder)
    monkeypatch.setattr(Decoder, "__module__", "captioning.models.merge")
    with pytest.raises(UserError, match=r"`output` that is an nn\.Linear with a bias"):
        build_decoder({"_target_": "captioning.models.merge.MergeDecoder"}, 10, 4)


def test_what_the_program_gives_is_not_for_a_config_to_say():
    node = {"_target_": "captioning.models.merge.MergeDecoder", "hidden_dim": 4, "feature_dim": 3}
    with pytest.raises(UserError, match="feature_dim is set by the program"):
        build(node, vocabulary_size=9, feature_dim=5)
