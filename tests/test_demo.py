"""The command `demo` up to its page; tests/web has the page."""

import socket
import sys
from pathlib import Path

import pytest
from PIL import Image
from verbs import run

from captioning import UserError
from captioning.demo import draw_samples, find_samples, load_captioners, main


@pytest.fixture
def ckpt(tmp_path):
    path = tmp_path / "lr=0.1,seed=2" / "best.ckpt"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("gone.ckpt", "ckpt=gone.ckpt: there is no such file"),
        ("ckpt=['{ckpt}',gone.ckpt]", "ckpt=gone.ckpt: there is no such file"),
        ("{ckpt} port=65536", "port=65536: it is a number from 1 to 65535"),
    ],
)
def test_what_cannot_be_is_a_sentence(ckpt, capsys, arguments, error):
    assert main(arguments.replace("{ckpt}", f"{ckpt}").split()) == 1
    assert capsys.readouterr().err.startswith(f"error: {error}")


def test_without_gradio_it_says_what_to_install(ckpt, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "captioning.web.demo_page", raising=False)
    assert main([f"ckpt={ckpt}"]) == 1
    expected = "error: the page needs Gradio: pip install 'captioning[demo]'\n"
    assert capsys.readouterr().err == expected


def test_samples_are_the_first_images_of_a_folder(tmp_path, capsys):
    for name in ("b.PNG", "a.jfif", "c.eps", ".thumbnails/a.jpg", "captions.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "nested").mkdir()
    expected = [str(tmp_path / "a.jfif"), str(tmp_path / "b.PNG")]
    assert find_samples(str(tmp_path)) == expected
    printed = capsys.readouterr().err
    assert printed.startswith("left out: ")
    assert "(1): c.eps" in printed
    assert "(1): .thumbnails" in printed
    for empty, reason in (("nested", "none is there"), ("gone", "no such file")):
        with pytest.raises(UserError, match=f"samples=.*{reason}"):
            find_samples(str(tmp_path / empty))


@pytest.mark.parametrize(("source", "kind"), [("scenes.Scenes", "scene"), ("readers.X", "photo")])
def test_without_samples_they_are_like_what_the_model_was_trained_on(source, kind, tmp_path):
    config = {"data": {"_target_": f"captioning.data.{source}"}}
    samples = draw_samples([config], str(tmp_path))
    assert Path(samples).name.startswith(kind)
    paths = find_samples(samples)
    assert paths
    for path in paths:
        Image.open(path).verify()


@pytest.mark.slow
def test_with_data_the_training_captions_rerank(trained, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ckpt = str(trained[1] / "best.ckpt")
    (reranked,) = load_captioners({"run": ckpt}, str(folder / "data"), "", "cpu").values()
    (plain,) = load_captioners({"run": ckpt}, "", "", "cpu").values()
    image = folder / "data" / "val-red.png"
    scores = [dict(captioner.alternatives(image)) for captioner in (reranked, plain)]
    assert len(scores[0]) > len(scores[1])
    plain.search = reranked.search
    plain.fit_rerank(folder / "data")
    assert dict(plain.alternatives(image)) == scores[0]


@pytest.mark.slow
def test_a_port_that_is_taken_is_a_sentence(trained, folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(folder, "run/best.ckpt", f"port={port}", module="captioning.demo")
    assert done.returncode == 1
    assert done.stderr == f"error: port={port} is taken; type port={port + 1}\n"
