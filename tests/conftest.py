"""A tiny data set, a tiny encoder and no network."""

import csv
import socket

import pytest
from hypothesis import settings
from PIL import Image
from sweeps_writing import write_sweep
from tallies import faults, inputs_tried
from verbs import TINY, run

from captioning.data.records import Record

# Speed is a benchmark's business: a busy machine must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

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


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the tests run, with a CSV data set of coloured squares in data/."""
    root = tmp_path_factory.mktemp("train")
    (root / "data").mkdir()
    with open(root / "data" / "captions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "split"])
        for split in ("train", "val"):
            for colour in ("red", "green", "blue", "white"):
                name = f"{split}-{colour}.png"
                Image.new("RGB", (40, 32), colour).save(root / "data" / name)
                table.writerow([name, f"a {colour} square", split])
                table.writerow([name, f"there is a {colour} square", split])
    return root


@pytest.fixture(scope="session")
def trained(folder):
    """The folder of a run of two epochs."""
    done = run(folder, *TINY, "data.root=data", "trainer.max_epochs=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    return done, folder / "run"


@pytest.fixture
def sweep(tmp_path):
    """The folder of a sweep."""
    return write_sweep(tmp_path / "grid")


@pytest.fixture
def added():
    """A score that was added as the table's first row: letters a caption, fewer are better."""
    from captioning.metrics.score_table import TABLE, WORDS, Score

    def letters(hypotheses, references):
        return [len(hypothesis) for hypothesis in hypotheses]

    before = dict(TABLE)
    TABLE.clear()
    TABLE.update({"letters": Score("letters", WORDS, letters, mode="min", factor=1)} | before)
    yield
    TABLE.clear()
    TABLE.update(before)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of the processes of pytest-xdist
        session.config.workeroutput |= {"faults": dict(faults), "inputs_tried": inputs_tried}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    faults.update(node.workeroutput["faults"])
    inputs_tried.update(node.workeroutput["inputs_tried"])


def pytest_terminal_summary(terminalreporter):
    if inputs_tried:
        terminalreporter.section("inputs tried")
    for name, text in inputs_tried.items():
        terminalreporter.line(f"{name}: {text} at the highest")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Say after everything else how many faults there were, and that nothing was lost."""
    if faults and not hasattr(config, "workeroutput"):
        losses = ("checkpoints lost", "half-written files read", "features of another image")
        counts = "; ".join(f"{loss}: {faults[loss]}" for loss in losses)
        print(f"faults injected: {faults['faults injected']}; {counts}")
