"""Encoding in real processes: one, and two started by torchrun."""

import numpy as np
import pytest
import torch
from verbs import TINY, run

from captioning import UserError
from captioning.encode import choose_device
from captioning.features.store import FeatureStore

OPTIONS = [
    *(option for option in TINY if option.startswith(("data=", "encoder"))),
    "data.root=data",
]


@pytest.mark.slow
def test_torchrun_divides_the_images(folder, trained):
    done = run(folder, *OPTIONS, module="captioning.encode")
    assert done.returncode == 0, done.stderr
    assert "8 images, 512 each" in done.stdout
    assert "encoding" not in done.stderr
    torchrun = ["--standalone", "--nproc-per-node=2", "-m", "captioning.encode"]
    done = run(folder, *torchrun, *OPTIONS, "features_root=shared", module="torch.distributed.run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 images") == 1
    (manifest,) = folder.glob("shared/*/manifest.json")
    shared = FeatureStore(manifest.parent)
    assert len(shared.shards) == 8
    single = FeatureStore(folder / "outputs" / "features" / manifest.parent.name)
    np.testing.assert_allclose(shared.load(), single.load(), rtol=1e-2, atol=1e-3)


def test_a_missing_gpu_is_refused():
    with pytest.raises(UserError, match="torch finds a GPU"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("name", "rank", "device"),
    [
        ("auto", "1", "cuda:1"),
        ("cuda", "2", "cuda:0"),
        ("cuda:1", "0", "cuda:1"),
        ("cpu", "1", "cpu"),
    ],
)
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, name, rank, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device(name) == device
