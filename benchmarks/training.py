"""Rows: training, in target words per second."""

from __future__ import annotations

import json
import subprocess
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from benchmarks import baseline, corpus
from benchmarks.rows import Row, in_turn, matrix_peak, peak_of, seconds
from captioning.features.batches import CaptionDataset, LengthBuckets
from captioning.models.attention import AttentionDecoder
from captioning.models.lstm import LSTMDecoder
from captioning.models.merge import MergeDecoder
from captioning.training.module import CaptioningModule

SIZE, BATCH, FEATURE, REGIONS = 256, 128, 1280, 49


class Bare:
    """The project's module and loader under a loop of four lines; Lightning's is measured apart."""

    def __init__(self, decoder, store, rows, captions, low=False):
        self.low = low  # as trainer.precision=bf16-mixed
        self.module = CaptioningModule(decoder, {"vocabulary": []})
        self.module.log = lambda *args, **kwargs: None
        self.module.trainer = SimpleNamespace(
            estimated_stepping_batches=1000, precision_plugin=None
        )
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        dataset = CaptionDataset(store, rows, captions)
        images = dataset.store_rows if len(store.shape) == 3 else None
        buckets = LengthBuckets(dataset.lengths, BATCH, shuffle=True, images=images)
        # As the datamodule does it on the device.
        options = {"collate_fn": lambda batch: batch._replace(features=batch.features.float())}
        self.loader = DataLoader(dataset, sampler=buckets, batch_size=None, **options)
        self.words = self.pictures = 0

    def __call__(self):
        self.words = self.pictures = 0
        for batch in self.loader:
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, self.low):
                loss = self.module.training_step(batch)
            loss.backward()
            self.optimizer.step()
            self.words += len(batch.target_positions)
            self.pictures += len(batch.features)


def _data(folder: Path, number: int, vocabulary: int, shape: tuple[int, ...]):
    images = number // 5
    store = corpus.store(folder, images, shape)
    return store, np.repeat(np.arange(images), 5), corpus.captions(images * 5, vocabulary)


def _adam(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def merge(folder: Path, repeats: int, batches: int) -> list[Row]:
    """`model=merge` with all words and with the frequent ones, against the notebook's prefixes."""
    rows: list[Row] = []
    store, images, full = _data(folder / "merge", batches * BATCH, corpus.ALL_WORDS, (FEATURE,))
    few = corpus.captions(len(full), corpus.FREQUENT_WORDS)
    keras = baseline.KerasMerge(corpus.ALL_WORDS, FEATURE)
    adam, some = _adam(keras), full[: min(32, 16 * batches)]

    def prefixes():
        baseline.prefix_steps(keras, adam, store, images, some, corpus.ALL_WORDS, 38, 16)

    for name, captions, words in (
        ("merge 256, all 8,768 words", full, corpus.ALL_WORDS),
        ("merge 256, words seen 5 times", few, corpus.FREQUENT_WORDS),
    ):
        ours, low = both(
            lambda words=words: MergeDecoder(words, FEATURE, SIZE), store, images, captions
        )
        calls = {"ours": ours, "low": low, "ordinary": prefixes, "peak": matrix_peak()}
        took = in_turn(calls, repeats)
        baseline_words = sum(len(tokens) - 1 for tokens in some)
        work = 3 * ours.words * (16 * SIZE**2 + 2 * SIZE**2 + 2 * SIZE * words)
        way = "every prefix of a caption, padded, one-hot targets (the Keras notebook's way)"
        rows += _rows(f"train {name}", took, ours.words, baseline_words, work, way)
    return rows


def keras(folder: Path, repeats: int, batches: int, python: str) -> list[Row]:
    """`model=merge` with all words against the notebook's step in Keras, under that interpreter."""
    store, images, captions = _data(folder / "merge", batches * BATCH, corpus.ALL_WORDS, (FEATURE,))
    ours, low = both(lambda: MergeDecoder(corpus.ALL_WORDS, FEATURE, SIZE), store, images, captions)
    took = in_turn({"ours": ours, "low": low}, repeats)
    done = subprocess.run(
        [python, Path(__file__).with_name("keras_notebook.py"), str(repeats)],
        input=json.dumps(corpus.captions(200, corpus.ALL_WORDS)),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs, way = json.loads(done.stdout), "the notebook's own step, in Keras"
    return [
        Row(name, "words/s", [ours.words / each for each in took[kind]], theirs, way)
        for name, kind in (("train merge, all words", "ours"), ("same, bf16-mixed", "low"))
    ]


def lstm(folder: Path, repeats: int, batches: int) -> list[Row]:
    """`model=lstm` against a plain loop over a plain DataLoader; and Lightning's own overhead."""
    words = corpus.FREQUENT_WORDS
    store, images, captions = _data(folder / "lstm", batches * BATCH, words, (FEATURE,))
    ours, low = both(lambda: LSTMDecoder(words, FEATURE), store, images, captions)
    plain = _Plain(baseline.ShowAndTell(words, FEATURE), store, images, captions)
    calls = {"ours": ours, "low": low, "ordinary": plain, "peak": matrix_peak()}
    took = in_turn(calls, repeats)
    work = operations(ours.words, words)
    way = "a DataLoader item by item, random order, logits for padding too"
    rows = _rows("train lstm 256", took, ours.words, ours.words, work, way)
    return [*rows, lightning(ours, repeats)]


def lightning(bare: Bare, repeats: int) -> Row:
    """Lightning's loop around the same module and loader, against the bare one."""
    ours, plain = [], []
    del bare.module.log
    for _ in range(repeats):
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock := _Clock()],
        )
        trainer.fit(bare.module, bare.loader)
        ours.append(1000 * clock.second / len(bare.loader))
        bare.module.log = lambda *args, **kwargs: None
        plain.append(1000 * seconds(bare) / len(bare.loader))
        del bare.module.log
    return Row("a step under Lightning", "ms", ours, plain, "a bare loop")


class _Clock(pl.Callback):
    """Times the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        self.second = time.perf_counter() - self.start


def attention(folder: Path, repeats: int, batches: int) -> list[Row]:
    """`model=attention` on grids, against soft attention cell by cell, an image a caption."""
    words = corpus.FREQUENT_WORDS
    shape = (REGIONS, FEATURE)
    store, images, captions = _data(folder / "attention", batches * BATCH, words, shape)
    ours, low = both(lambda: AttentionDecoder(words, FEATURE), store, images, captions)
    plain = _Plain(baseline.SoftAttention(words, FEATURE), store, images, captions, batches=2)
    calls = {"ours": ours, "low": low, "ordinary": plain, "peak": matrix_peak()}
    took = in_turn(calls, repeats)
    work = operations(ours.words, words, ours.pictures)
    way = "Xu et al. 2015 cell by cell, the image projected for each caption and word"
    return _rows("train attention 256", took, ours.words, plain.words, work, way)


def operations(words: int, vocabulary: int, images: int = 0, feature: int = FEATURE) -> float:
    """Return what training on words takes with an LSTM, given images with attention over grids."""
    a_word = 16 * SIZE**2 + 2 * SIZE * vocabulary
    if images:
        a_word += 8 * SIZE**2 + 4 * REGIONS * SIZE
    an_image = 2 * REGIONS * feature * SIZE  # no gradient goes to frozen features
    return 3 * words * a_word + 2 * images * an_image


def both(make, store, images, captions) -> tuple[Bare, Bare]:
    """Return the same training in float32 and as trainer.precision=bf16-mixed does it."""
    return tuple(Bare(make(), store, images, captions, low) for low in (False, True))


class _Plain:
    def __init__(self, decoder, store, rows, captions, batches=None):
        self.decoder, self.optimizer = decoder, _adam(decoder)
        self.loader, self.batches = baseline.loader(store, rows, captions, BATCH), batches
        self.words = 0

    def __call__(self):
        self.words = 0
        torch.manual_seed(0)  # the same captions in each turn
        for features, tokens in islice(self.loader, self.batches):
            baseline.step(self.decoder, self.optimizer, features, tokens)
            self.words += int((tokens[:, 1:] != 0).sum())


def _rows(name, took, our_words, ordinary_words, work, way) -> list[Row]:
    peak = peak_of(took["peak"])
    ordinary = [ordinary_words / each for each in took["ordinary"]]
    row = Row(
        name,
        "words/s",
        [our_words / each for each in took["ours"]],
        ordinary,
        way,
        limit=peak * our_words / work,
        notes={"useful GFLOP/s": work / np.median(took["ours"]) / 1e9, "peak": peak / 1e9},
    )
    low = [our_words / each for each in took["low"]]
    return [row, Row(f"{name}, bf16-mixed", "words/s", low, ordinary, "the same, float32")]
