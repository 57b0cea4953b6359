"""Kill sweeps at random moments and let them go on: `python tests/killing.py FOLDER KILLS SEED`.

Everything heavy is imported once, then each sweep is a fork, killed by SIGKILL like a machine that
goes down. FOLDER has data/; each sweep works in a folder of its own. Prints the moments, and fails
if a sweep that was killed does not end as an undisturbed one.
"""

import csv
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from verbs import TINY

COMMAND = [
    "-m",
    *TINY[:-1],  # all but hidden_dim
    "data.root=data",
    "search=greedy",
    "trainer.max_epochs=3",
    "datamodule.batch_size=2",
    "model.hidden_dim=8,16",
    "name=killed",
]


def sweep(folder, moment=None):
    """Run the sweep in a process of its own, killed after `moment` seconds; return its seconds."""
    start = time.monotonic()
    process = os.fork()
    if process == 0:
        os.chdir(folder)
        output = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["train", *COMMAND]
        from captioning.train import main

        code = 1
        try:
            main()
            code = 0
        finally:
            os._exit(code)
    if moment is not None:
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert moment is not None or status == 0, (folder / "log").read_text()[-3000:]
    return time.monotonic() - start


def results(folder):
    """Return all that a sweep's table and jobs hold, except times, by a name for each part."""
    root = folder / "outputs" / "sweeps" / "killed"
    with open(root / "summary.csv", newline="") as file:
        parts = {"table": [{**row, "seconds_per_epoch": ""} for row in csv.DictReader(file)]}
    for path in sorted(root.glob("*/run.json")):
        run = json.loads(path.read_text())
        weights = torch.load(path.parent / "last.ckpt", weights_only=True)["state_dict"]
        with open(path.parent / "metrics.csv", newline="") as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        status = json.loads(path.with_name("status.json").read_text())["status"]
        job = {key: run[key] for key in ("history", "best_epoch", "best_score")}
        job |= {"weights": {key: value.tolist() for key, value in weights.items()}}
        job |= {"metrics": rows, "status": status}
        parts |= {f"{path.parent.name} {key}": value for key, value in job.items()}
    return parts


def main(root, kills, seed):
    """Compare killed sweeps with an undisturbed one."""
    import transformers  # noqa: F401  # what a job imports, so that moments fall on its work

    random.seed(seed)
    folders = [root / "undisturbed", *(root / f"killed{at}" for at in range(kills // 2))]
    for folder in folders:
        shutil.copytree(root / "data", folder / "data")
    seconds = sweep(folders[0])
    expected = results(folders[0])
    assert len(expected["table"]) == 2 and len(expected) == 1 + 2 * 6
    for folder in folders[1:]:
        moments = [random.uniform(0, seconds) for _ in range(2)]
        for moment in moments:
            sweep(folder, moment)
        sweep(folder)
        measured = results(folder)
        different = [key for key in expected if measured.get(key) != expected[key]]
        outcome = f"different in {different}" if different else "equal"
        times = ", ".join(f"{moment:.2f}" for moment in moments)
        print(f"killed after {times} of {seconds:.2f} s: {outcome}", flush=True)
        if different:
            sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
