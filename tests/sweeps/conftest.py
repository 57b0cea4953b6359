import pytest
from sweeps_writing import write_run


@pytest.fixture
def sweep(tmp_path):
    """A grid of two models, two sizes and two seeds, of which one job failed."""
    for at, (model, size, seed) in enumerate(
        (model, size, seed) for model in ("lstm", "merge") for size in (16, 64) for seed in (1, 2)
    ):
        score = 0.1 + 0.2 * (model == "lstm") + size / 1e3 + seed / 100
        overrides = [f"model={model}", f"model.hidden_dim={size}", "data=scenes", "name=grid"]
        folder = tmp_path / "grid" / f"model={model},model.hidden_dim={size},seed={seed}"
        write_run(folder, overrides, seed, [score / 2, score], trained_parameters=size * (1 + at))
    folder = tmp_path / "grid" / "model=lstm,model.hidden_dim=-1,seed=1"
    overrides = ["model=lstm", "model.hidden_dim=-1", "data=scenes", "name=grid"]
    write_run(folder, overrides, 1, 0.0, "failed", error="no <size>")
    (folder / "traceback.txt").write_text("Traceback <here>")
    return tmp_path / "grid"
