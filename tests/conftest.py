"""A tiny data set, a tiny encoder and no network."""

import socket

import pytest
from PIL import Image

from captioning.data.records import Record

CAPTIONS = {
    "red": ("A red square .", "There is a red square .", "The red thing"),
    "green": ("A green square .", "There is a green square .", "The green thing"),
    "blue": ("A blue square .", "There is a blue square .", "The blue thing"),
    "white": ("A white square .", "There is a white square .", "The white thing"),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Only loopback may be reached."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise AssertionError(f"a test reached for {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def records(tmp_path):
    """Eight pictures of one colour: four to train on, the same four colours to validate."""
    made = []
    for split in ("train", "val"):
        for colour, captions in CAPTIONS.items():
            path = tmp_path / f"{split}-{colour}.png"
            Image.new("RGB", (40, 32), colour).save(path)
            made.append(Record(path.name, str(path), captions, split))
    return made


@pytest.fixture(scope="session")
def encoder():
    """A ResNet18 with seeded random weights that reads pictures of 32 x 32 pixels."""
    from captioning.features.encoder import Encoder

    return Encoder("resnet18", weights=None, image_size=32)
