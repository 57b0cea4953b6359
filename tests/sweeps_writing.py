"""Folders of runs that were never trained."""

import json


def write_run(folder, overrides, seed, cider, status="finished", config=None, **content):
    """Write what a run leaves; `cider` may be one score an epoch."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([*overrides, f"seed={seed}"]))
    if config:
        (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    scores = cider if isinstance(cider, list) else [cider]
    run = {
        "status": status,
        "seed": seed,
        "metrics": {"val/cider": max(scores), "val/loss": 2.0, "train/loss": 1.0},
        "history": [{"epoch": at, "val/cider": score} for at, score in enumerate(scores)],
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
