"""Encoding in real processes: one, and two started by torchrun."""

import numpy as np
import pytest
from verbs import TINY, run

from captioning import UserError
from captioning.encode import choose_device
from captioning.features.store import FeatureStore

OPTIONS = [
    *(option for option in TINY if option.startswith(("data=", "encoder"))),
    "data.root=data",
]


def find_stores(root):
    """Return the stores below a folder, which other tests may have added to, by name."""
    return {path.parent.name: FeatureStore(path.parent) for path in root.rglob("manifest.json")}


@pytest.mark.slow
def test_what_was_encoded_for_training_is_found_and_torchrun_divides_the_images(folder, trained):
    done = run(folder, *OPTIONS, module="captioning.encode")
    assert done.returncode == 0, done.stderr
    assert "8 images, 512 each" in done.stdout
    assert "encoding" not in done.stderr
    torchrun = ["--standalone", "--nproc-per-node=2", "-m", "captioning.encode"]
    done = run(folder, *torchrun, *OPTIONS, "features_root=shared", module="torch.distributed.run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 images") == 1
    ((name, shared),) = find_stores(folder / "shared").items()
    assert len(shared.shards) == 8
    single = find_stores(folder / "outputs" / "features")[name]
    np.testing.assert_allclose(shared.load(), single.load(), rtol=1e-2, atol=1e-3)


def test_a_missing_gpu_is_refused():
    with pytest.raises(UserError, match="torch finds a GPU"):
        choose_device("tpu")
