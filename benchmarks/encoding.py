"""Rows: encoding, JPEG files on disk to stored features, in images per second."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.rows import Row, in_turn, matrix_peak, peak_of, seconds
from captioning.data.records import Record
from captioning.features.encoder import (
    ONNX_MIN_IMAGES,
    Encoder,
    build_classifier,
    cut_before_pooling,
)
from captioning.features.store_building import build_store
from captioning.features.weights import find_weights, load_weights

# Multiplications and additions for an image of 224 x 224, without the head.
LITE0 = "efficientnet_lite0"
OPERATIONS = {"resnet50": 8.18e9, LITE0: 0.77e9}


def draw_images(folder: Path, number: int) -> list[Record]:
    """Write JPEGs of Flickr8k's usual size, 500 x 375, as hard to decode as photographs."""
    folder.mkdir()
    random = np.random.default_rng(0)
    records = []
    for at in range(number):
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        grain = random.normal(0, 8, image.shape)
        path = folder / f"{at:05}.jpg"
        Image.fromarray((image + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        records.append(Record(path.name, str(path), ("an image",), "train"))
    return records


class Files(Dataset):
    """An image an item, by torchvision's transforms."""

    def __init__(self, records: list[Record], encoder: Encoder):
        self.records = records
        size = encoder.preprocess.image_size
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.ToTensor(),
                transforms.Normalize(encoder.preprocess.mean, encoder.preprocess.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, at: int) -> torch.Tensor:
        return self.transform(Image.open(self.records[at].path).convert("RGB"))


def plain_network(name: str) -> nn.Module:
    """Return the network as torchvision has it, without its head."""
    body = cut_before_pooling(build_classifier(name, 224))
    if name == LITE0:
        load_weights(body, find_weights(name, "package")[0])
    return body.eval()


@torch.no_grad()
def plain_encoding(
    network: nn.Module, files: Files, out: Path, device: str = "cpu", workers: int = 2
) -> None:
    """Encode as tutorials do: a DataLoader with workers, eager float32, one array saved."""
    loader = DataLoader(files, 32, num_workers=workers)
    parts = [network(images.to(device)).mean((2, 3)).cpu() for images in loader]
    np.save(out, torch.cat(parts).numpy())


def encoding(folder: Path, repeats: int, images: int) -> list[Row]:
    """ResNet50 (random weights) and EfficientNet-Lite0, ours against the plain way."""
    records, rows = draw_images(folder / "jpeg", images), []
    for name, some in (("resnet50", records[: images // 4]), (LITE0, records)):
        encoder = Encoder(name, "package" if name == LITE0 else None)
        many = (
            ONNX_MIN_IMAGES if images > 8 else images
        )  # getting ONNX Runtime ready takes longer than 8
        ready = seconds(lambda encoder=encoder, many=many: encoder.prepare_for(many))
        network, files = plain_network(name), Files(some, encoder)

        def ours(encoder=encoder, some=some) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as root:
                build_store(root, encoder, some)

        def plain(network=network, files=files) -> None:
            plain_encoding(network, files, folder / "plain.npy")

        took = in_turn({"ours": ours, "ordinary": plain, "peak": matrix_peak()}, repeats)
        peak = peak_of(took["peak"])
        row = Row(
            f"encode {name}",
            "images/s",
            [len(some) / each for each in took["ours"]],
            [len(some) / each for each in took["ordinary"]],
            "a DataLoader with two workers, the network in eager float32",
            notes={"seconds to get ONNX Runtime ready": ready, "peak GFLOP/s": peak / 1e9},
        )
        if name == "resnet50":  # Lite0's depthwise convolutions wait for memory, not for products
            row.limit = peak / OPERATIONS[name]
        rows.append(row)
    return rows
