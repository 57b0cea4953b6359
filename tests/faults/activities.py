"""What the faults disturb: each activity works in a folder; run again, it goes on there."""

import csv
import hashlib
import json
import zipfile
from contextlib import closing, redirect_stdout
from io import StringIO

import numpy as np
import torch
from PIL import Image
from verbs import TINY

COLOURS = ("red", "green", "blue", "white")


def make_data(folder):
    """Draw eight images with captions, and write two archives."""
    (folder / "data").mkdir(parents=True)
    lines = ["image,caption,split"]
    for split in ("train", "val"):
        for at, colour in enumerate(COLOURS):
            name = f"{split}-{colour}.png"
            Image.new("RGB", (40 + at, 32), colour).save(folder / "data" / name)
            lines += [f"{name},{text} {colour} square,{split}" for text in ("a", "there is a")]
    (folder / "data" / "captions.csv").write_text("\n".join(lines))
    (folder / "served").mkdir()
    for number in (1, 2):
        with zipfile.ZipFile(folder / "served" / f"part{number}.zip", "w") as archive:
            for name in "abc":
                archive.writestr(f"part{number}/{name}.txt", f"{number}{name}" * 50_000)


class Activity:
    """`run` works in `folder`, beside the data's; `state` returns all that must be equal then."""

    def __init__(self, data, encoder=None, url=None):
        self.data, self.encoder, self.url = data, encoder, url


class Encoding(Activity):
    """Encode eight images into three shards, flushed after each image."""

    def run(self, folder):
        from captioning.data.readers import CaptionFolder
        from captioning.features import store_building
        from captioning.features.store_building import build_store

        store_building.FLUSH_EVERY = 1
        records = CaptionFolder(str(self.data), "csv").records()
        return build_store(folder / "features", self.encoder, records, batch_size=1, per_shard=3)

    def state(self, folder):
        store = self.run(folder)  # opens a complete store
        rows = zip(store.ids.tolist(), store.load().tolist(), strict=True)
        return {"features": dict(rows), "unreadable": store.unreadable}


class Drawing(Activity):
    """Draw ten scenes."""

    def run(self, folder):
        from captioning.data.scenes import Scenes

        Scenes(str(folder / "scenes"), 10).prepare()

    def state(self, folder):
        (drawn,) = (path for path in (folder / "scenes").iterdir() if path.is_dir())
        return {path.name: sha256(path) for path in sorted(drawn.iterdir())}


class Downloading(Activity):
    """Download two archives from a server on this machine."""

    def run(self, folder):
        from captioning.download import download_flickr8k

        served = sorted((self.data.parent / "served").iterdir())
        archives = {
            path.name: (hashlib.md5(path.read_bytes()).hexdigest(), path.stem) for path in served
        }
        with redirect_stdout(StringIO()):
            download_flickr8k(folder / "flickr8k", self.url, archives=archives)

    def state(self, folder):
        root = folder / "flickr8k"
        # An archive that was unpacked already may stay.
        paths = [path for path in files(root) if path.suffix != ".zip"]
        return {str(path.relative_to(root)): sha256(path) for path in paths}


class Captioning(Activity):
    """Caption eight images into a table; the activity itself stands in for the captioner."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.preprocess = lambda image: torch.tensor([float(image.width), *image.getpixel((0, 0))])

    def prepare_for(self, images):
        """Do nothing."""

    def scored_captions_of(self, images):
        return [(f"an image, {row}", {}) for row in images.tolist()]

    def run(self, folder):
        from captioning.output import caption_job as job
        from captioning.output.caption_tables import CaptionTable

        job.BATCH = 1
        self.encoder = self
        images = sorted(str(path) for path in self.data.glob("*.png"))
        failed = []
        with closing(CaptionTable(str(folder / "captions.csv"), {"decoder": "x"})) as table:
            job.write_captions(self, images, table, failed)
        assert not failed, failed

    def state(self, folder):
        return {"captions.csv": (folder / "captions.csv").read_text()}


class Bookkeeping(Activity):
    """Run a sweep's two jobs, whose training is three saves of a checkpoint; write its summary."""

    def run(self, folder):
        from captioning.sweeps.jobs import resume_job
        from captioning.sweeps.summary import write_summary
        from captioning.web.sweep_page import write_sweep_page

        for seed in (1, 2):
            job = folder / "sweep" / f"seed={seed}"
            (job / ".hydra").mkdir(parents=True, exist_ok=True)
            (job / ".hydra" / "overrides.yaml").write_text(f"[seed={seed}]")
            resume_job(
                job, {"seed": seed}, lambda last, job=job, seed=seed: self.train(job, seed, last)
            )
            write_summary(folder / "sweep")
            write_sweep_page(folder / "sweep")

    def train(self, job, seed, last):
        from captioning.data.atomic import atomic_write
        from captioning.training.best_checkpoint import AtomicCheckpointIO

        done = torch.load(last, weights_only=True)["epoch"] + 1 if last else 0
        for epoch in range(done, 3):
            AtomicCheckpointIO().save_checkpoint({"epoch": epoch}, job / "last.ckpt")
        metrics = {"val/cider": 0.5 + seed, "val/loss": 1.0}
        run = {"status": "finished", "seed": seed, "epochs": 3, "metrics": metrics}
        run |= {"history": [{"epoch": 0, **metrics}], "monitor": "val/cider", "mode": "max"}
        run |= dict.fromkeys(("seconds", "seconds_per_epoch", "trained_parameters", "commit"), 1)
        run |= {"encoder": {"name": "x"}, "hardware": {}, "versions": {}, "dirty": False}
        with atomic_write(job / "run.json") as temporary:
            temporary.write_text(json.dumps(run))
        return metrics["val/cider"]

    def state(self, folder):
        root = folder / "sweep"
        state = {name: (root / name).read_text() for name in ("summary.csv", "summary.md")}
        for path in sorted(root.glob("*/status.json")):
            status = json.loads(path.read_text())
            state[path.parent.name] = (status["status"], status.get("score"))
        return state


class Training(Activity):
    """Train two epochs of two batches; `ckpt_path=last` goes on in the folder."""

    options = (
        *TINY,
        "callbacks.bert_similarity=null",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
        "trainer.max_epochs=2",
        "datamodule.batch_size=4",
        "model.hidden_dim=8",
        "search=greedy",
        "ckpt_path=last",
    )

    def run(self, folder):
        from composing import composed

        from captioning.config.compose import resolve_config
        from captioning.training.run import train

        paths = (f"data.root={self.data}", f"datamodule.features_root={self.data.parent}/features")
        with redirect_stdout(StringIO()):
            train(resolve_config(composed(*self.options, *paths, f"run_dir={folder}/run")))

    def state(self, folder):
        run = json.loads((folder / "run" / "run.json").read_text())
        state = {key: run[key] for key in ("history", "best_epoch", "status")}
        for name in ("last.ckpt", "best.ckpt"):
            weights = torch.load(folder / "run" / name, weights_only=True)["state_dict"]
            state[name] = {key: value.tolist() for key, value in weights.items()}
        for name in ("metrics.csv", "captions.csv"):
            state[name] = (folder / "run" / name).read_text()
        return state


def files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_damaged(folder):
    """Return the files that have their final name and cannot be read."""
    damaged = []
    for path in files(folder):
        if ".partial" in str(path.relative_to(folder)):
            continue
        try:
            if path.suffix == ".ckpt":
                torch.load(path, weights_only=True)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".npy" and ".tmp" not in path.name:
                np.load(path, mmap_mode="r")
            elif path.name in ("metrics.csv", "summary.csv"):
                with open(path, newline="") as file:
                    assert all(None not in row.values() for row in csv.DictReader(file))
        except Exception as error:  # a torn file can raise anything
            damaged.append(f"{path}: {error}")
    return damaged


ACTIVITIES = {  # and how many faults each meets
    "encoding": (Encoding, 80),
    "drawing": (Drawing, 20),
    "downloading": (Downloading, 36),
    "captioning": (Captioning, 36),
    "bookkeeping": (Bookkeeping, 30),
    "training": (Training, 28),
}
