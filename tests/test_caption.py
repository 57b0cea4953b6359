"""The command, as a user runs it, on the checkpoint of test_train.py."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from verbs import run

from captioning.caption import group_config, main, printable
from captioning.captioner import Captioner

COMMAND = "captioning.caption"


@pytest.fixture(scope="session")
def ckpt(trained):
    return trained[1] / "best.ckpt"


@pytest.fixture
def captioner(ckpt):
    return Captioner.from_checkpoint(ckpt)


@pytest.fixture
def images(tmp_path):
    """Two of one name, and one that cannot be read."""
    root = tmp_path / "holiday (1), a=b"
    for name, colour in (("a.png", "red"), ("sub/a.png", "blue")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(root / name)
    (root / "broken.jpg").write_bytes(b"no image")
    return root


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["image"], row["caption"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_table_names_what_cannot_be_read_and_takes_later_images(ckpt, captioner, images, capsys):
    done = run(images.parent, f"ckpt={ckpt}", str(images), "out=new/captions.csv", module=COMMAND)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {images}/broken.jpg cannot be read as")
    assert done.stdout == "new/captions.csv: captions made: 2, images without: 1\n"
    paths = [f"{images}/a.png", f"{images}/sub/a.png"]
    expected = list(zip(paths, captioner.captions(paths), strict=True))
    table = images.parent / "new" / "captions.csv"
    assert rows(table) == expected
    Image.new("RGB", (64, 64), "green").save(images / "z.png")
    assert main([f"ckpt={ckpt}", str(images), f"out={table}"]) == 1
    assert "captions made: 1, there already: 2, images without: 1" in capsys.readouterr().out
    assert rows(table)[:2] == expected
    assert len(rows(table)) == 3


@pytest.mark.slow
def test_without_a_table_captions_are_printed_and_what_is_left_out(ckpt, captioner, images, capsys):
    (images / "broken.jpg").unlink()
    for name in (".thumbnails/a.png", "film.mp4", "notes.txt"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).touch()
    assert main([f"ckpt={ckpt}", f"images={images}"]) == 0
    printed = capsys.readouterr()
    paths = [f"{images}/a.png", f"{images}/sub/a.png"]
    assert printed.out == "".join(f"{path}\t{captioner(path)}\n" for path in paths)
    assert printed.err == (
        "left out: hidden files and folders, thumbnails and bins (1): .thumbnails; left out: "
        "files of unknown kind (1): film.mp4\n"
    )


@pytest.mark.slow
def test_the_names_of_images_can_come_by_standard_input(ckpt, images):
    command = [sys.executable, "-m", COMMAND, f"ckpt={ckpt}", "-", "out=metadata.jsonl"]
    names = b"a.png\0sub/a.png\0./a.png\0https://example.org/b.jpg\0"
    done = subprocess.run(command, cwd=images, input=names, capture_output=True)
    assert done.returncode == 1
    assert b"https://example.org/b.jpg cannot be read as" in done.stderr
    lines = (images / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in lines] == ["a.png", "sub/a.png"]


@pytest.mark.slow
def test_a_text_is_put_beside_each_image(ckpt, captioner, images, capsys):
    (images / "a.txt").write_text("mine")
    assert main([f"ckpt={ckpt}", f"images={images}", "out=sidecar"]) == 1
    assert (images / "a.txt").read_text() == "mine"
    caption = captioner(images / "sub" / "a.png")
    assert (images / "sub" / "a.txt").read_text() == f"{caption}\n"
    assert "captions made: 1, there already: 1, images without: 1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_search_is_chosen_with_its_settings(ckpt, images, capsys):
    arguments = [f"ckpt={ckpt}", f"{images / 'a.png'}", "search=sample", "search.temperature=5.0"]
    for seed in range(4):
        assert main([*arguments, f"search.seed={seed}"]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) > 1


@pytest.fixture
def rerank(ckpt, images, folder, tmp_path, monkeypatch):
    """Arguments for one image, and the training images in the folder `data`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "data", "data")
    return [f"ckpt={ckpt}", f"images={images / 'a.png'}", "rerank=neighbours"]


@pytest.mark.slow
def test_training_captions_rerank_what_is_found(rerank, captioner, images, capsys):
    assert main([*rerank, "data=data"]) == 0
    captioner.fit_rerank("data")
    image = images / "a.png"
    assert capsys.readouterr().out == f"{image}\t{captioner(image)}\n"


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["captions", "images"])
def test_a_table_goes_on_while_the_training_data_are_the_same(rerank, tmp_path, capsys, changed):
    Path("data/val-red.png").write_bytes(b"broken, and of no use here")
    assert main([*rerank, "out=all.csv", "data=data"]) == 0
    assert main([*rerank, "out=all.csv", f"data={tmp_path}/data/"]) == 0
    assert "there already: 1" in capsys.readouterr().out
    if changed == "captions":
        table = Path("data/captions.csv")
        table.write_text(table.read_text().replace("square", "thing"))
    else:
        shutil.copy("data/train-blue.png", "data/train-red.png")
    assert main([*rerank, "out=all.csv", "data=data"]) == 1
    assert "all.csv has captions of another search" in capsys.readouterr().err


@pytest.mark.slow
def test_a_png_is_a_figure_of_the_captions(ckpt, captioner, images, tmp_path, capsys):
    figure = tmp_path / "new" / "figure.png"
    arguments = [f"ckpt={ckpt}", str(images), f"out={figure}"]
    assert main(arguments) == 1  # one of them cannot be read
    paths = [f"{images}/a.png", f"{images}/sub/a.png"]
    lines = [f"{path}\t{captioner(path)}" for path in paths]
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [*lines, f"{figure}: 2 images with captions"]
    assert printed.err.startswith(f"error: {images}/broken.jpg cannot be read")
    with Image.open(figure) as opened:
        assert opened.format == "PNG"
    assert main(arguments) == 1
    assert "figure.png is there; type overwrite=true" in capsys.readouterr().err
    assert main([f"ckpt={ckpt}", paths[0], f"out={figure}", "overwrite=true"]) == 0


def test_a_figure_is_not_among_the_images(images, capsys):
    assert main([str(images), f"out={images}/sub/figure.png"]) == 1
    assert "would be one of the images next time" in capsys.readouterr().err


def test_the_packaged_captioner_has_its_own_weights(images, capsys):
    assert main([f"{images}/a.png", "weights=mine.pth"]) == 1
    assert "ckpt=default is a folder with weights of its own" in capsys.readouterr().err


def test_a_figure_is_of_few_images(tmp_path, capsys):
    for number in range(51):
        (tmp_path / f"{number}.png").touch()
    assert main([str(tmp_path), f"out={tmp_path / 'figure.png'}"]) == 1
    assert "a figure is of 50 images at most, not 51; type out=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("images=b out=c.json", "it ends with .csv, .jsonl or .png, or is the word"),
        ("b width=0", "search.width=0: it is 1 to 1000"),
        ("b search=sample width=3", "search: captioning.search.sample.sample has no width"),
        ("b search.widht=3", "did you mean width?"),
        ("b search.width=[", "search.width=[ cannot be read"),
        ("b search=best", "search=best: it is beam, consensus"),
        ("b search=neighbours data=c", "type width=50 rerank=neighbours instead of"),
        ("b rerank=neighbours", "data=FOLDER, of the training,"),
        ("b rerank.ridge=1", "rerank=: it is image_fit, neighbours"),
        ("b data=c", "data=FOLDER, of the training,"),
        ("nowhere", "there is no such file or folder"),
        (__file__, "there is no checkpoint nowhere"),
        (f"{__file__} device=tpu", "device=tpu: it is cpu, or cuda"),
    ],
)
def test_what_is_wrong_is_a_sentence(capsys, arguments, error):
    assert main(["ckpt=nowhere", *arguments.split()]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert error in printed
    assert printed.count("\n") == 1


def test_a_search_takes_the_typed_settings():
    assert group_config("search", "beam", ["rerank.x=1", "search.width=3"])["width"] == 3
    assert group_config("search", "sample", ["search.top_p=1e-3"])["top_p"] == 0.001


def test_a_name_does_not_reach_the_terminal_raw():
    name = os.fsdecode(b"a\n\x1b[31mcaf\xe9")
    assert printable(name) == r"a\n\x1b[31mcaf\udce9"
    assert printable("é 日本.jpg") == "é 日本.jpg"


def test_captions_of_the_packaged_captioner_say_how_sure_they_are(images, capsys):
    (images / "broken.jpg").unlink()
    assert main([str(images)]) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    captioner = Captioner.default()
    for path, caption, confidence in printed:
        expected = captioner.confidence(path, [caption])
        assert float(confidence) == pytest.approx(expected[0], abs=6e-4)
    assert main([str(images), f"out={images.parent}/a.csv"]) == 0
    text = (images.parent / "a.csv").read_text(encoding="utf-8")
    assert text == "image,caption,confidence\n" + "".join(
        ",".join(f'"{cell}"' if "," in cell else cell for cell in row) + "\n" for row in printed
    )


def test_a_caption_of_too_little_confidence_is_left_out_and_counted(images, capsys):
    (images / "broken.jpg").unlink()
    table = images.parent / "a.jsonl"
    command = [str(images), f"out={table}", "min_confidence=0.9"]
    assert main(command) == 0
    assert "captions made: 0, left out by min_confidence: 2" in capsys.readouterr().out
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    assert [line["text"] for line in lines] == ["", ""]
    assert all(0 < line["confidence"] < 0.9 for line in lines)
    assert main(command) == 0  # they are not made again
    assert "captions made: 0, there already: 2" in capsys.readouterr().out
    assert main([str(images), f"out={table}", "min_confidence=0"]) == 1
    assert "has captions of another search" in capsys.readouterr().err
    assert main([str(images), "out=sidecar"]) == 0
    assert len(list(images.rglob("*.txt"))) == 2
    assert main([str(images), "out=sidecar", "overwrite=true", "min_confidence=0.9"]) == 0
    assert not list(images.rglob("*.txt"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["min_confidence=2"], "min_confidence=2.0: it is a number from 0 to 1"),
        (["min_confidence=nan"], "min_confidence=nan: it is a number from 0 to 1"),
        (["min_confidence=x"], "min_confidence=x: it is a number"),
        (["min_confidence=0.5", "out=a.png"], "a figure shows captions only"),
        (["image_fit=true"], "data=FOLDER, of the training, is typed together with"),
        (["data=folder"], "data=FOLDER, of the training, is typed together with"),
    ],
)
def test_options_that_cannot_be_are_a_sentence(options, reason, images, capsys):
    assert main([str(images), *options]) == 1
    assert capsys.readouterr().err.startswith(f"error: {reason}")


def test_a_table_is_not_gone_on_with_by_another_confidence(images, capsys, monkeypatch):
    (images / "broken.jpg").unlink()
    command = [str(images), f"out={images.parent}/a.csv"]
    assert main(command) == 0
    captioner = Captioner.default()
    captioner.confidence_model.tensors["intercept"] = torch.tensor(0.0)
    monkeypatch.setattr(Captioner, "from_checkpoint", lambda *_: captioner)
    assert main(command) == 1
    assert "a.csv has other columns, or another confidence; type" in capsys.readouterr().err


@pytest.mark.slow
def test_image_fit_is_a_column(ckpt, folder, images, capsys):
    (images / "broken.jpg").unlink()
    options = [f"ckpt={ckpt}", str(images), "image_fit=true", f"data={folder / 'data'}"]
    done = run(images.parent, *options, "out=a.csv", module=COMMAND)
    assert done.returncode == 0, done.stderr
    captioner = Captioner.from_checkpoint(ckpt)
    captioner.fit_image_fit(folder / "data", features_root=images.parent / "outputs" / "features")
    with (images.parent / "a.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            expected = captioner.image_fit(row["image"], [row["caption"]])
            assert float(row["image_fit"]) == pytest.approx(expected[0], abs=2e-3)
    options[1] = str(folder / "data" / "train-red.png")
    done = run(images.parent, *options, module=COMMAND)
    assert "warning: 1 of the images are training images of data=" in done.stderr


@pytest.mark.slow
def test_without_a_confidence_none_can_be_asked_for(ckpt, images, capsys):
    assert main([f"ckpt={ckpt}", str(images), "min_confidence=0.5"]) == 1
    assert "this captioner has no confidence; `python -m" in capsys.readouterr().err
