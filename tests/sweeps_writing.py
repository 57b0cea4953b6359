"""Folders of runs that were never trained."""

import json
from itertools import product


def write_run(folder, overrides, seed, cider, status="finished", config=None, **content):
    """Write what a run leaves; `cider` may be one score per epoch."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([*overrides, f"seed={seed}"]))
    if config:
        (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    scores = cider if isinstance(cider, list) else [cider]
    run = {
        "status": status,
        "seed": seed,
        "metrics": {"val/cider": max(scores), "val/loss": 2.0, "train/loss": 1.0},
        "history": [{"epoch": epoch, "val/cider": score} for epoch, score in enumerate(scores)],
        "monitor": "val/cider",
        "mode": "max",
        "started": "2026-11-01T10:00:00+00:00",
        "seconds": 20.0,
        "seconds_per_epoch": 10.0 * seed,
        "epochs": 2,
        "trained_parameters": 5,
        "encoder": {"name": "resnet18"},
        "hardware": {"device": "a processor"},
        "versions": {},
        "commit": "abc",
        "dirty": False,
    }
    (folder / "run.json").write_text(json.dumps(run | content))


def write_sweep(folder):
    """Write a grid of two models, two sizes and two seeds, of which one job failed."""
    for at, (model, size, seed) in enumerate(product(("lstm", "merge"), (16, 64), (1, 2))):
        score = 0.1 + 0.2 * (model == "lstm") + size / 1e3 + seed / 100
        settings = [f"model={model}", f"model.hidden_dim={size}"]
        overrides = [*settings, "data=scenes", "name=grid"]
        path = folder / ",".join([*settings, f"seed={seed}"])
        write_run(path, overrides, seed, [score / 2, score], trained_parameters=size * (1 + at))
    path = folder / "model=lstm,model.hidden_dim=-1,seed=1"
    overrides = ["model=lstm", "model.hidden_dim=-1", "data=scenes", "name=grid"]
    write_run(path, overrides, 1, 0.0, "failed", error="no <size>")
    (path / "traceback.txt").write_text("Traceback <here>")
    return folder
