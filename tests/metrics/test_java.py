"""How Java is run, with scripts named `java`; METEOR itself too, where there is a real one."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from captioning import UserError
from captioning.metrics import java as module
from captioning.metrics import spice as spice_module
from captioning.metrics.java import java, java_version
from captioning.metrics.meteor import meteor
from captioning.metrics.spice import spice

CAPTIONS = ["a dog runs", "a cat"], [["a dog"], ["two cats", "a grey cat"]]
JAVA_8 = 'if [ "$1" = -version ]; then echo \'openjdk version "1.8.0_392"\' >&2; exit; fi\n'


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Return a function that puts a shell script first on the PATH as `java`."""

    def put(script):
        path = tmp_path / "bin" / "java"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return put


def has_ended(pid):
    """Wait a little: a killed process goes when the kernel comes to it."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21-ea" 2023-09-19', 21),
    ],
)
def test_the_version_of_java_is_read(fake_java, line, version):
    fake_java(f"echo 'Picked up _JAVA_OPTIONS: -Xmx1g' >&2; echo '{line}' >&2")
    assert java_version() == version


def test_no_java_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"METEOR needs Java.*default-jre-headless"):
        meteor(*CAPTIONS)


def test_a_java_that_fails_is_quoted(fake_java):
    fake_java("echo 'Could not reserve enough space' >&2; exit 1")
    with pytest.raises(UserError, match="METEOR failed: Could not reserve enough space"):
        meteor(*CAPTIONS)


def test_a_java_that_hangs_is_stopped_with_its_children(fake_java, tmp_path):
    fake_java(f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; wait")
    with pytest.raises(UserError, match="METEOR had not answered after 1 seconds"):
        meteor(*CAPTIONS, timeout=1)
    assert all(has_ended(int((tmp_path / name).read_text())) for name in ("child", "self"))


def test_nothing_goes_on_after_an_interrupt(fake_java):
    fake_java("sleep 600")
    with pytest.raises(KeyboardInterrupt), java("METEOR", [], Path(), 60) as (process, _):
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"captioning\[java\]"):
        meteor(*CAPTIONS)


def test_spice_refuses_any_java_but_8(fake_java):
    fake_java("echo 'openjdk version \"17.0.15\"' >&2")
    with pytest.raises(UserError, match="Java 8 only, and `java` is version 17"):
        spice(*CAPTIONS)


def test_spice_names_what_is_not_there(fake_java):
    fake_java(JAVA_8)
    with pytest.raises(UserError, match=r"stanford-corenlp-3\.6\.0\.jar.*384 MB"):
        spice(*CAPTIONS)


def test_spice_returns_what_its_program_writes(fake_java, tmp_path, monkeypatch):
    """The program is a script that writes what SPICE would: the last image first."""
    (tmp_path / "lib").mkdir()
    for kind in ("", "-models"):
        (tmp_path / "lib" / f"stanford-corenlp-3.6.0{kind}.jar").touch()
    monkeypatch.setattr(spice_module, "program_folder", lambda *names: tmp_path)
    answers = '[{"image_id": 1, "scores": {"All": {"f": 0.25}}}, '
    answers += '{"image_id": 0, "scores": {"All": {"f": 0.75}}}]'
    fake_java(f"{JAVA_8}cp $4 asked.json; echo '{answers}' > $6")
    scores = spice(*CAPTIONS)
    assert scores.per_image.tolist() == [0.75, 0.25]
    assert scores.corpus == 0.5
    assert '"test": "a dog runs", "refs": ["a dog"]' in (tmp_path / "asked.json").read_text()


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
