"""How Java is run, with scripts named `java`; METEOR itself too, where there is a real one."""

import os
import shutil
import signal

import pytest

from captioning import UserError
from captioning.metrics import java
from captioning.metrics.java import meteor, run_java, spice

CAPTIONS = ["a dog runs", "a cat"], [["a dog"], ["two cats", "a grey cat"]]


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Return a function that puts a shell script first on the PATH as `java`."""

    def install(script):
        path = tmp_path / "bin" / "java"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return install


def test_no_java_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"METEOR needs Java.*default-jre-headless"):
        meteor(*CAPTIONS)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (meteor, "METEOR failed: Could not reserve space"),
        (spice, r"SPICE failed: Could not reserve space; .*Java 8 only.*corenlp-3\.6\.0\.jar"),
    ],
)
def test_a_java_that_fails_is_quoted(fake_java, metric, message):
    fake_java("echo 'Could not reserve space' >&2; exit 1")
    with pytest.raises(UserError, match=message):
        metric(*CAPTIONS)


def test_a_java_that_hangs_is_stopped_with_its_children(fake_java, tmp_path):
    os.mkfifo(tmp_path / "alive")
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    fake_java(f"exec 3> {tmp_path}/alive; sleep 60 & wait")
    with pytest.raises(UserError, match="METEOR failed: no answer, in 1 seconds"):
        meteor(*CAPTIONS, timeout=1)
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b""  # at once, as nobody who could write is left


def test_nothing_goes_on_after_an_interrupt(fake_java):
    fake_java("sleep 600")
    with pytest.raises(KeyboardInterrupt), run_java("METEOR", [], 60) as process:
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"captioning\[java\]"):
        meteor(*CAPTIONS)


def test_spice_returns_what_its_program_writes(fake_java, tmp_path):
    """The program is a script that writes what SPICE would: the last image first."""
    answers = '[{"image_id": 1, "scores": {"All": {"f": 0.25}}}, '
    answers += '{"image_id": 0, "scores": {"All": {"f": 0.75}}}]'
    fake_java(f"cp $4 {tmp_path}/captions.json; echo '{answers}' > $6")
    scores = spice(*CAPTIONS)
    assert scores.per_image.tolist() == [0.75, 0.25]
    assert scores.corpus == 0.5
    assert '"test": "a dog runs", "refs": ["a dog"]' in (tmp_path / "captions.json").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no java on the PATH")
def test_meteor_equals_coco_captions():
    """Its numbers, taken once from pycocoevalcap's own wrapper around the same program."""
    hypotheses = [
        "Two dogs are running on the sand .",
        "",
        "a child\n||| leaps into the pool",
        "un café très noir",
    ]
    references = [
        ["Two brown dogs run on the beach .", "A pair of dogs race over wet sand ."],
        ["A man in a red jacket climbs a rock ."],
        ["A little girl is jumping into a pool .", "A kid jumps into water .", "Splash !"],
        ["a very black café", "coffee"],
    ]
    scores = meteor(hypotheses, references)
    expected = [0.273147308697, 0.0, 0.259852296140, 0.116504854369]
    assert scores.per_image.tolist() == pytest.approx(expected, abs=1e-9)
    assert scores.corpus == pytest.approx(0.159038816206, abs=1e-9)
