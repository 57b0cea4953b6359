"""Rows on a GPU, each beside a baseline on the same card; `python -m benchmarks.gpu` runs them."""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from benchmarks import baseline, corpus
from benchmarks.encoding import Files, draw_images, plain_encoding, plain_network
from benchmarks.rows import Row, in_turn, matrix_peak, peak_of
from benchmarks.searching import generator
from benchmarks.training import BATCH, REGIONS, operations
from captioning.config.compose import CONF
from captioning.data.records import Record
from captioning.data.vocabulary import PAD, SPECIALS, Vocabulary
from captioning.features.batches import Batch
from captioning.features.datamodule import CaptionDataModule
from captioning.features.encoder import Encoder
from captioning.features.images import read_ahead
from captioning.features.store_building import build_store
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.search.beam import beam_search
from captioning.training.fit import default_callbacks
from captioning.training.module import CaptioningModule

WORDS, FEATURE = corpus.FREQUENT_WORDS, 2048  # a ResNet50's
LOW = "bf16-mixed"
KINDS = {
    "lstm": ((FEATURE,), LSTMDecoder, baseline.ShowAndTell),
    "attention": ((REGIONS, FEATURE), AttentionDecoder, baseline.SoftAttention),
}


@dataclass
class Bench:
    """Where rows are measured and how large their pieces are; what several rows need is kept."""

    folder: Path
    device: torch.device
    repeats: int = 3
    images: int = 6000  # to train on, with five captions each: Flickr8k's
    batches: int = 80  # of the 235 of an epoch
    plain_batches: dict[str, int] = field(default_factory=lambda: {"lstm": 60, "attention": 8})
    drawn: int = 128  # different files among the pictures
    pictures: int = 768  # to encode
    steps: int = 150  # of training, before a search
    searched: int = 1000
    product: int = 8192
    _kept: dict[Any, Any] = field(default_factory=dict)

    def once(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """Return `make(self, *arguments)`, called the first time only."""
        key = (make.__name__, *arguments)
        if key not in self._kept:
            self._kept[key] = make(self, *arguments)
        return self._kept[key]

    def wait(self) -> None:
        """Wait until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Time calls turn by turn, the device idle at both ends of each."""

        def until_idle(call: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                call()
                self.wait()

            return run

        return in_turn({name: until_idle(call) for name, call in calls.items()}, self.repeats)


def peak(bench: Bench) -> float:
    """Return the operations a second of large bfloat16 matrix products: the card's limit."""
    call = matrix_peak(bench.product, device=bench.device, dtype=torch.bfloat16)
    return peak_of(bench.timed({"peak": call})["peak"], bench.product)


def flickr8k(bench: Bench, kind: str) -> tuple[Any, list[list[int]]]:
    """Return features, and five captions per image."""
    store = corpus.store(bench.folder / kind, bench.images, KINDS[kind][0])
    return store, corpus.captions(5 * bench.images, WORDS)


def data_module(bench: Bench, kind: str, resident: bool) -> CaptionDataModule:
    """Return the project's own data module over that corpus, as if it had read and encoded it."""
    store, captions = bench.once(flickr8k, kind)
    words = [*SPECIALS, *(f"w{number}" for number in range(len(SPECIALS), WORDS))]
    texts = [" ".join(words[token] for token in tokens[1:-1]) for tokens in captions]
    records = [
        Record(f"{at:08}", "", tuple(texts[5 * at : 5 * at + 5]), "train")
        for at in range(bench.images)
    ]
    data = CaptionDataModule(None, None, str(bench.folder), BATCH, resident=resident)
    data.vocabulary, data.store = Vocabulary(words), store
    data.splits = {"train": records, "val": records[:2]}
    return data


class Clock(pl.Callback):
    """Notes when each epoch ends, the device idle, and how many words it had."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.ends: list[float] = []
        self.words: list[int] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Begin to count."""
        self.words.append(0)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Batch, index: int) -> None:
        """Count the words."""
        self.words[-1] += len(batch.target_positions)

    def on_train_epoch_end(self, *_: Any) -> None:
        """Note the time."""
        self.bench.wait()
        self.ends.append(time.perf_counter())


def speeds(
    bench: Bench, kind: str, precision: str, deterministic: Any, resident: bool
) -> list[float]:
    """Train as a user does, without validation: words a second of each epoch after the first."""
    options = OmegaConf.to_container(OmegaConf.load(CONF / "trainer" / "default.yaml"))
    del options["gpus"]
    options |= {"accelerator": "gpu" if bench.device.type == "cuda" else "cpu", "devices": 1}
    options |= {"max_epochs": bench.repeats + 1, "precision": precision}
    options |= {"deterministic": deterministic, "limit_val_batches": 0, "logger": False}
    options |= {"enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"limit_train_batches": bench.batches}
    folder, clock = str(bench.folder / "run"), Clock(bench)
    try:
        trainer = pl.Trainer(
            **options, callbacks=[*default_callbacks(folder), clock], default_root_dir=folder
        )
        data = data_module(bench, kind, resident)
        torch.manual_seed(0)
        module = CaptioningModule(KINDS[kind][1](WORDS, FEATURE), {"vocabulary": []})
        trainer.fit(module, datamodule=data)
    finally:  # the trainer sets them for the whole process
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    del trainer, module, data
    gc.collect()  # resident features
    return (np.array(clock.words[1:]) / np.diff(clock.ends)).tolist()


def plain_speeds(bench: Bench, kind: str) -> list[float]:
    """Return words a second of a plain loop over a DataLoader, over a part of an epoch."""
    store, captions = bench.once(flickr8k, kind)
    images = np.repeat(np.arange(bench.images), 5)
    loader = baseline.loader(store, images, captions, BATCH)
    torch.manual_seed(0)
    decoder = KINDS[kind][2](WORDS, FEATURE).to(bench.device)
    adam = torch.optim.AdamW(decoder.parameters(), lr=1e-3)

    words = 0

    def run() -> None:
        nonlocal words
        words = 0
        torch.manual_seed(0)  # the same captions in each turn
        for features, tokens in islice(loader, bench.plain_batches[kind]):
            moved = features.to(bench.device), tokens.to(bench.device)
            baseline.step(decoder, adam, *moved)
            words += int((tokens[:, 1:] != PAD).sum())

    took = bench.timed({"plain": run})["plain"]
    return [words / each for each in took]


def training(bench: Bench, kind: str) -> list[Row]:
    """A third of an epoch of Flickr8k's size by the project's own trainer, and by a plain loop."""
    words = sum(len(tokens) - 1 for tokens in bench.once(flickr8k, kind)[1])
    work = operations(words, WORDS, bench.images if kind == "attention" else 0, FEATURE)
    way = "a plain loop over a DataLoader item by item, float32 (TF32)"
    rows = []
    for name, precision in (("float32", "32-true"), (LOW, LOW)):
        ours = bench.once(speeds, kind, precision, "warn", False)
        row = Row(f"train {kind}, {name}", "words/s", ours, bench.once(plain_speeds, kind), way)
        row.limit = bench.once(peak) * words / work
        seconds = words / statistics.median(ours)
        row.notes = {"s an epoch": seconds, "useful TFLOP/s": work / seconds / 1e12}
        rows.append(row)
    return rows


def determinism(bench: Bench, kind: str) -> list[Row]:
    """What `deterministic: warn`, the default, costs."""
    sides = [bench.once(speeds, kind, LOW, value, False) for value in ("warn", False)]
    name = f"train {kind}, {LOW}, deterministic: warn"
    return [Row(name, "words/s", *sides, "deterministic: false")]


def resident(bench: Bench, kind: str) -> list[Row]:
    """All features on the card, against gathering those of each batch."""
    sides = [bench.once(speeds, kind, LOW, "warn", each) for each in (True, False)]
    way = "features gathered for each batch"
    return [Row(f"train {kind}, {LOW}, resident features", "words/s", *sides, way)]


def pictures(bench: Bench) -> list[Record]:
    """Return JPEG files, a few different ones under many names."""
    folder = bench.folder / "jpeg"
    records = draw_images(folder, bench.drawn)
    for at in range(bench.drawn, bench.pictures):
        path = folder / f"{at:05}.jpg"
        shutil.copyfile(folder / f"{at % bench.drawn:05}.jpg", path)
        records.append(Record(path.name, str(path), ("an image",), "train"))
    return records


def encoding(bench: Bench, name: str) -> list[Row]:
    """JPEG files to stored features, against a DataLoader with a worker a core, eager float32."""
    records, workers = pictures(bench), min(16, os.cpu_count() or 1)
    encoder, network = (
        each.to(bench.device) for each in (Encoder(name, None), plain_network(name))
    )

    def ours() -> None:
        with tempfile.TemporaryDirectory(dir=bench.folder) as root:
            build_store(root, encoder, records, device=str(bench.device))

    def plain() -> None:
        files, out = Files(records, encoder), bench.folder / "plain.npy"
        plain_encoding(network, files, out, bench.device, workers)

    def decode() -> None:
        for _ in read_ahead([record.path for record in records], encoder.preprocess, 32):
            pass

    size = encoder.preprocess.image_size
    pixels = torch.randint(0, 256, (32, 3, size, size), dtype=torch.uint8, device=bench.device)

    def compute() -> None:
        for _ in range(0, len(records), len(pixels)):
            encoder(pixels)

    calls = {"ours": ours, "plain": plain, "decode": decode, "compute": compute}
    rates = {side: [len(records) / s for s in took] for side, took in bench.timed(calls).items()}
    way = f"a DataLoader with {workers} workers, the network in eager float32 on the same device"
    row = Row(f"encode {name}", "images/s", rates["ours"], rates["plain"], way)
    row.notes["decoding alone"] = statistics.median(rates["decode"])
    row.notes["the network alone"] = statistics.median(rates["compute"])
    return [row]


def learnt(bench: Bench) -> LSTMDecoder:
    """Return a decoder that has learnt how long captions are, so that searches end as they do."""
    torch.manual_seed(0)
    decoder = LSTMDecoder(WORDS, FEATURE).to(bench.device)
    adam = torch.optim.AdamW(decoder.parameters(), lr=2e-3)
    captions = corpus.captions(BATCH * bench.steps, WORDS)
    for start in range(0, len(captions), BATCH):
        some = [torch.tensor(tokens) for tokens in captions[start : start + BATCH]]
        tokens = torch.nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=PAD)
        features = torch.randn(len(some), FEATURE).clamp(min=0)
        baseline.step(decoder, adam, features.to(bench.device), tokens.to(bench.device))
    return decoder.eval()


def beam(bench: Bench, kind: str) -> list[Row]:
    """Beam search in batches of 250, against transformers' `generate` in the same batches."""
    decoder, theirs = learnt(bench), generator(FEATURE, bench.device)
    parts = torch.randn(bench.searched, FEATURE).clamp(min=0).to(bench.device).split(250)

    def ours() -> None:
        for part in parts:
            beam_search(decoder, part, width=5)

    def generate() -> None:
        for part in parts:
            theirs(part)

    took = bench.timed({"ours": ours, "generate": generate})
    sides = [[bench.searched / each for each in of_side] for of_side in took.values()]
    way = "transformers' generate, the same batches, one GPT-2 layer of the same width"
    return [Row("beam 5", "captions/s", *sides, way)]


ROWS = {
    "lstm": (training, "lstm"),
    "attention": (training, "attention"),
    "resnet50": (encoding, "resnet50"),
    "beam": (beam, "lstm"),
    "lstm_determinism": (determinism, "lstm"),
    "attention_determinism": (determinism, "attention"),
    "resident": (resident, "attention"),
}
