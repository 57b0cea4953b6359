"""The verb `demo` up to its page; tests/page has the page."""

import socket
import sys
import time

import pytest
from PIL import Image
from verbs import run

from captioning import UserError
from captioning.demo import _captioners, _checkpoints, _samples, main


@pytest.fixture
def ckpt(tmp_path):
    path = tmp_path / "lr=0.1,seed=2" / "best.ckpt"
    path.parent.mkdir()
    path.touch()
    return path


def test_help_answers_at_once(tmp_path):
    start = time.monotonic()
    done = run(tmp_path, "--help", module="captioning.demo")
    assert done.returncode == 0
    assert "ckpt=PATH" in done.stdout
    assert time.monotonic() - start < 3  # 0.2 seconds, unless something heavy is imported
    assert run(tmp_path, module="captioning.demo").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chkpt=x"], "did you mean ckpt=?"),
        (["samples=x"], "ckpt= is missing"),
        (["ckpt=gone.ckpt"], "ckpt=gone.ckpt: there is no such file"),
        (["ckpt=[gone.ckpt"], "several are named"),
        (["ckpt={a:1}"], "several are named"),
        (["ckpt=[1,2]"], "several are named"),
        (["ckpt={here}", "port=http"], "port=http: it is a number from 1 to 65535"),
        (["ckpt={here}", "port=65536"], "port=65536: it is a number from 1 to 65535"),
    ],
)
def test_what_cannot_be_is_a_sentence(ckpt, capsys, arguments, told):
    assert main([one.replace("{here}", str(ckpt)) for one in arguments]) == 1
    out, err = capsys.readouterr()
    assert told in err
    assert err.startswith("error: ")
    assert not out


def test_checkpoints_are_named_as_captioning_evaluate_has_them(ckpt, monkeypatch):
    monkeypatch.chdir(ckpt.parents[1])
    for name in ("a.ckpt", "b.ckpt"):
        open(name, "x").close()
    assert _checkpoints(str(ckpt)) == [str(ckpt)]
    assert _checkpoints("[a.ckpt,b.ckpt]") == ["a.ckpt", "b.ckpt"]
    assert _checkpoints(f"['{ckpt}',b.ckpt]") == [str(ckpt), "b.ckpt"]
    assert _checkpoints("*.ckpt") == ["a.ckpt", "b.ckpt"]


def test_without_gradio_it_says_what_to_install(ckpt, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "captioning.web.demo_page", raising=False)
    assert main([f"ckpt={ckpt}"]) == 1
    assert (
        capsys.readouterr().err == "error: the page needs Gradio: pip install 'captioning[demo]'\n"
    )


def test_samples_are_the_first_pictures_of_a_folder(tmp_path):
    for name in ("b.PNG", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "captions.csv").touch()
    (tmp_path / "nested").mkdir()
    assert _samples(str(tmp_path), "") == [str(tmp_path / "a.jpg"), str(tmp_path / "b.PNG")]
    for empty, why in (("nested", "no picture, none is there"), ("gone", "no such file")):
        with pytest.raises(UserError, match=f"samples=.*{why}"):
            _samples(str(tmp_path / empty), "")


def test_what_is_left_out_of_the_samples_is_told(tmp_path, capsys):
    for name in ("a.jfif", "b.eps", ".thumbnails/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert _samples(str(tmp_path), "") == [str(tmp_path / "a.jfif")]
    told = capsys.readouterr().err
    assert told.startswith("left out: ")
    assert "(1): b.eps" in told
    assert "(1): .thumbnails" in told


def test_without_samples_scenes_are_drawn(tmp_path):
    drawn = _samples(None, str(tmp_path))
    assert len(drawn) == 10
    with Image.open(drawn[0]) as scene:
        assert scene.size == (224, 224)


@pytest.mark.slow
def test_with_data_the_training_pictures_choose(trained, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ckpt = str(trained[1] / "best.ckpt")
    ((_, told),) = _captioners([ckpt], str(folder / "data"), None, "cpu").items()
    ((_, plain),) = _captioners([ckpt], None, None, "cpu").items()
    picture = folder / "data" / "val-red.png"
    scores = [dict(one.alternatives(picture)) for one in (told, plain)]
    assert len(scores[0]) > len(scores[1])
    plain.search = told.search
    plain.fit_rerank(folder / "data")
    assert dict(plain.alternatives(picture)) == scores[0]


@pytest.mark.slow
def test_a_port_that_is_taken_is_a_sentence(trained, folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(folder, "ckpt=run/best.ckpt", f"port={port}", module="captioning.demo")
    assert done.returncode == 1
    assert done.stderr == f"error: port={port} is taken; type port={port + 1}\n"
