"""How many images does a captioner need, and what does a head start give?

    python -m benchmarks.learning_curve FLICKR8K_FOLDER

The captioner in the package has seen every training image of Flickr8k, so it cannot answer that.
For each seed the 6,000 are shuffled and halved. A captioner is trained on one half, from nothing.
"Your own" are the first 200, 1,000 and 3,000 images of the other half, from nothing (3,000 from
nothing are that captioner) and with init= that captioner. The end of the curve, 6,000 from nothing,
is the base of docs/results/ablation.json. Scores are of the last epoch, on the 1,000 dev images.

Runs go to outputs/learning_curve; one that is there is not run again. Writes
docs/results/learning_curve.json and docs/learning_curve.png; `--table` prints the JSON's table.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from captioning.data.readers import CaptionFolder
from captioning.data.records import Record
from captioning.sweeps.summary import format_mean
from captioning.training.provenance import provenance

DOCS = Path(__file__).parents[1] / "docs"
FILE = DOCS / "results" / "learning_curve.json"
PLOT = DOCS / "learning_curve.png"
RUNS = Path("outputs/learning_curve")
SEEDS = (0, 1, 2)
SHARED = ["experiment=ablation", "data=folder", "data.layout=csv", "trainer.gpus=0"]
SHARED += [f"callbacks.{name}=null" for name in ("progress", "gallery", "bert_similarity")]
BASE = ["callbacks.progress=null", "experiment=ablation", "text_encoder=minilm", "trainer.gpus=0"]
SIZES = (200, 1000, 3000, 6000)
NOTHING, HEAD_START = "from nothing", "with a head start"
SOURCE = (NOTHING, 3000)  # the captioner of the head start, on the half that is not one's own
SETTINGS = {  # the best of a few trials of each, on dev with seed 0
    SOURCE: {"max_epochs": 20, "learning_rate": 2e-3, "min_count": 5},
    (HEAD_START, 200): {"max_epochs": 8, "learning_rate": 5e-4, "min_count": 1},
    (HEAD_START, 1000): {"max_epochs": 8, "learning_rate": 5e-4, "min_count": 1},
    (HEAD_START, 3000): {"max_epochs": 10, "learning_rate": 1e-3, "min_count": 5},
    (NOTHING, 200): {"max_epochs": 60, "learning_rate": 2e-3, "min_count": 2},
    (NOTHING, 1000): {"max_epochs": 45, "learning_rate": 2e-3, "min_count": 2},
}


def write_folder(folder: Path, records: list[Record], names: set[str]) -> None:
    """Write a data set of dev and the training images `names`, with a link to the corpus's images.

    The others are of the split test, which no training reads: so all folders hold the same images,
    and share their features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "Images").is_symlink():
        (folder / "Images").symlink_to(Path(records[0].path).resolve().parent)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "split"])
        for image, _, captions, split in records:
            own = "val" if split == "val" else "train" if image in names else "test"
            table.writerows([image, caption, own] for caption in captions)


def write_folders(corpus: Path, seed: int) -> None:
    """Write the data of a seed: the half of the head start, and the first images of the other."""
    records = [record for record in CaptionFolder(str(corpus)).records() if record.split]
    names = sorted(record.image_id for record in records if record.split == "train")
    random.Random(seed).shuffle(names)  # noqa: S311 - no secret
    middle = len(names) // 2
    for start, images in SETTINGS:
        is_source = (start, images) == SOURCE
        chosen = names[:middle] if is_source else names[middle : middle + images]
        write_folder(data_folder(seed, start, images), records, set(chosen))


def data_folder(seed: int, start: str, images: int) -> Path:
    """Return the folder of the data that a run is trained on."""
    return RUNS / f"seed-{seed}" / ("half" if (start, images) == SOURCE else f"{images}-images")


def run_folder(seed: int, start: str, images: int) -> Path:
    """Return the folder of a run."""
    return RUNS / f"seed-{seed}" / f"{images}-{start.replace(' ', '-')}"


def train(seed: int, start: str, images: int) -> dict[str, Any]:
    """Train in a folder of its own, or go on there; return its run.json."""
    folder, settings = run_folder(seed, start, images), SETTINGS[start, images]
    epochs = settings["max_epochs"]
    command = [sys.executable, "-m", "captioning.train", *SHARED, f"seed={seed}"]
    command += [f"data.root={data_folder(seed, start, images)}", f"trainer.max_epochs={epochs}"]
    command += [f"trainer.check_val_every_n_epoch={epochs}"]  # the last one
    command += [f"training.learning_rate={settings['learning_rate']}"]
    command += [f"datamodule.min_count={settings['min_count']}"]
    if start == HEAD_START:
        command += [f"init={run_folder(seed, *SOURCE)}/best.ckpt"]
    file = folder / "run.json"
    if not file.exists() or json.loads(file.read_text())["status"] != "finished":
        subprocess.run([*command, f"hydra.run.dir={folder}", "ckpt_path=last"], check=True)
    return json.loads(file.read_text())


def describe(seeds: list[dict[tuple[str, int], dict]]) -> list[dict[str, Any]]:
    """Return a row of the file for each start and number of images of one's own."""
    rows = {}
    for (start, images), settings in SETTINGS.items():
        runs = [runs[start, images] for runs in seeds]
        scores = [run["best_score"] for run in runs]
        row = {"start": start, "images": images, **settings, "cider": scores}
        row |= {"mean": statistics.mean(scores)}
        row |= {"spread": statistics.stdev(scores) if len(scores) > 1 else None}
        rows[start, images] = row | {"seconds": [run["seconds"] for run in runs]}
    ablation = json.loads((DOCS / "results" / "ablation.json").read_text(encoding="utf-8"))
    (base,) = [row["scores"]["cider"] for row in ablation if row["config"] == BASE]
    whole = {"start": NOTHING, "images": 6000, **base, "file": "ablation.json"}
    not_tuned = rows[SOURCE] | {"start": HEAD_START, "images": 0}
    return sorted([*rows.values(), whole, not_tuned], key=lambda row: row["images"])


def table(content: dict[str, Any]) -> str:
    """Return the scores, x100, as Markdown: a row a number of images."""
    cells = {(row["start"], row["images"]): format_mean(row, "cider") for row in content["rows"]}
    lines = [f"| your own images | {NOTHING} | {HEAD_START} |", "|---|---|---|"]
    for images in (0, *SIZES):
        pair = " | ".join(cells.get((start, images), "") for start in (NOTHING, HEAD_START))
        lines.append(f"| {images:,} | {pair} |")
    return "\n".join(lines)


def plot(content: dict[str, Any], path: Path) -> None:
    """Draw the two curves, and the captioner of the head start as it is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for start, colour in ((NOTHING, "#c2571a"), (HEAD_START, "#3b6ea8")):
        rows = [row for row in content["rows"] if row["start"] == start and row["images"]]
        means, spreads = ([100 * (row[key] or 0) for row in rows] for key in ("mean", "spread"))
        sizes = [row["images"] for row in rows]
        axis.errorbar(sizes, means, spreads, color=colour, marker="o", capsize=4, label=start)
    (before,) = [row for row in content["rows"] if not row["images"]]
    label = "the captioner of the head start, not fine-tuned"
    axis.axhline(100 * before["mean"], color="0.4", linestyle="--", linewidth=1, label=label)
    axis.set_xscale("log")
    axis.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axis.minorticks_off()
    axis.set_xlabel("images of your own, five captions each")
    axis.set_ylabel("CIDEr-D on 1,000 other images")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def main() -> None:
    """Run all seeds, and write the files after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="?", type=Path, help="a folder of Flickr8k")
    parser.add_argument("--table", action="store_true", help="print the table of the file")
    arguments = parser.parse_args()
    if arguments.table or not arguments.corpus:
        print(table(json.loads(FILE.read_text(encoding="utf-8"))))
        return
    content = provenance(torch.device("cpu")) | {
        "command": "python -m benchmarks.learning_curve FLICKR8K_FOLDER",
        "split": "val",
        "search": "beam, width 5",
        "options": SHARED,
    }
    seeds: list[dict] = []
    for seed in SEEDS:
        write_folders(arguments.corpus, seed)
        seeds.append({key: train(seed, *key) for key in SETTINGS})
        runs = [run for by_key in seeds for run in by_key.values()]  # some of an earlier command
        content |= {"started": min(run["started"] for run in runs)}
        content |= {"commit": ", ".join(sorted({str(run["commit"]) for run in runs}))}
        content |= {"seed": SEEDS[: len(seeds)], "rows": describe(seeds)}
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        plot(content, PLOT)
        print(table(content), flush=True)


if __name__ == "__main__":
    main()
