"""Encoding as a user starts it: alone, and divided by torchrun."""

import numpy as np
import pytest
from verbs import TINY, run

from captioning import UserError
from captioning.encode import device_of
from captioning.features.store import FeatureStore

pytestmark = pytest.mark.slow

OPTIONS = [*(one for one in TINY if one.startswith(("data=", "encoder"))), "data.root=data"]


def stores(root):
    """The stores below a folder, which other tests may have added to, by name."""
    return {path.parent.name: FeatureStore(path.parent) for path in root.rglob("manifest.json")}


def test_what_is_encoded_is_what_training_looks_for(folder, trained):
    done = run(folder, *OPTIONS, module="captioning.encode")
    assert done.returncode == 0, done.stderr
    assert "8 pictures, 512 each" in done.stdout
    assert "encoding" not in done.stderr
    shapes = [one.shape for one in stores(folder / "outputs" / "features").values()]
    assert (8, 512) in shapes


def test_processes_of_torchrun_divide_the_pictures(folder, trained):
    torchrun = ["--standalone", "--nproc-per-node=2", "-m", "captioning.encode"]
    done = run(folder, *torchrun, *OPTIONS, "features_root=shared", module="torch.distributed.run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 pictures") == 1
    ((name, shared),) = stores(folder / "shared").items()
    assert len(list(shared.folder.glob("features-*.npy"))) == 8
    alone = stores(folder / "outputs" / "features")[name].load()
    np.testing.assert_allclose(shared.load(), alone, rtol=1e-2, atol=1e-3)


def test_a_gpu_that_is_not_there_is_said():
    with pytest.raises(UserError, match="torch finds a GPU"):
        device_of("tpu")
