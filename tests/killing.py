"""Kill sweeps at random moments and let them go on: `python tests/killing.py FOLDER KILLS SEED`.

A program of its own: everything heavy is imported once, then each sweep is a fork of it, killed by
SIGKILL like a machine that goes down. FOLDER has data/; each sweep works in a folder of its own. It
prints the moments, and fails where a sweep that was killed does not end as an undisturbed one.
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
    *(one for one in TINY if "hidden_dim" not in one),
    "data.root=data",
    "search=greedy",
    "trainer.max_epochs=3",
    "datamodule.batch_size=2",
    "model.hidden_dim=8,16",
    "name=killed",
]
KILLS_A_SWEEP = 2


def preload():
    """Import what a job imports, so that moments fall on the work itself."""
    import transformers  # noqa: F401


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
    """Return all that a sweep's table and jobs say, but for times."""
    root = folder / "outputs" / "sweeps" / "killed"
    with open(root / "summary.csv", newline="") as file:
        found = {"table": [{**row, "seconds_per_epoch": ""} for row in csv.DictReader(file)]}
    for path in sorted(root.glob("*/run.json")):
        run = json.loads(path.read_text())
        state = torch.load(path.parent / "last.ckpt", weights_only=True)["state_dict"]
        found[path.parent.name] = {
            "history": run["history"],
            "best": (run["best_epoch"], run["best_score"]),
            "weights": {key: weight.tolist() for key, weight in state.items()},
            "metrics.csv": metrics(path.parent / "metrics.csv"),
            "status": json.loads((path.parent / "status.json").read_text())["status"],
        }
    return found


def metrics(path):
    """Return the rows of metrics.csv: the values of each step that are not empty."""
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def make(root, name):
    """Return a new folder with the data."""
    shutil.copytree(root / "data", root / name / "data")
    return root / name


def main(root, kills, seed):
    """Compare killed sweeps with an undisturbed one."""
    preload()
    random.seed(seed)
    undisturbed = make(root, "undisturbed")
    seconds = sweep(undisturbed)
    wanted = results(undisturbed)
    assert len(wanted) == 3 and len(wanted["table"]) == 2
    for number in range(kills // KILLS_A_SWEEP):
        folder = make(root, f"killed{number}")
        moments = [random.uniform(0, seconds) for _ in range(KILLS_A_SWEEP)]
        for moment in moments:
            sweep(folder, moment)
        sweep(folder)
        found = results(folder)
        different = [
            f"{job} {key}"
            for job in wanted
            for key in (wanted[job] if job != "table" else [""])
            if (
                found[job] != wanted[job] if job == "table" else found[job][key] != wanted[job][key]
            )
        ]
        print(
            f"killed after {', '.join(f'{one:.2f}' for one in moments)} of {seconds:.2f} s", end=""
        )
        print(f": different in {different}" if different else ": equal", flush=True)
        if different:
            sys.exit(1)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
