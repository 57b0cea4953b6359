"""The verb, as a user runs it, on the checkpoint of test_train.py."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from verbs import run

from captioning import UserError
from captioning.caption import group_node, main, printable
from captioning.captioner import Captioner

VERB = "captioning.caption"


@pytest.fixture(scope="session")
def ckpt(trained):
    return trained[1] / "best.ckpt"


@pytest.fixture
def captioner(ckpt):
    return Captioner.from_checkpoint(ckpt)


@pytest.fixture
def pictures(tmp_path):
    """Two of one name, and one that cannot be read."""
    root = tmp_path / "holiday (1), a=b"
    for name, colour in (("a.png", "red"), ("sub/a.png", "blue")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(root / name)
    (root / "broken.jpg").write_bytes(b"no picture")
    return root


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["image"], row["caption"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_process_writes_a_table_and_names_what_it_cannot_read(ckpt, captioner, pictures):
    done = run(
        pictures.parent, f"ckpt={ckpt}", f"images={pictures}", "out=new/captions.csv", module=VERB
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"error: {pictures}/broken.jpg cannot be read as a picture: it is of no format that is "
        "known here"
    )
    assert done.stdout == "new/captions.csv: captions made: 2, pictures without: 1\n"
    paths = [f"{pictures}/a.png", f"{pictures}/sub/a.png"]
    expected = list(zip(paths, captioner.captions(paths), strict=True))
    assert rows(pictures.parent / "new" / "captions.csv") == expected


@pytest.mark.slow
def test_without_a_table_captions_are_printed(ckpt, captioner, pictures, capsys):
    picture = str(pictures / "a.png")
    assert main([f"ckpt={ckpt}", f"images={picture}"]) == 0
    assert capsys.readouterr().out == f"{picture}\t{captioner(picture)}\n"


@pytest.mark.slow
def test_what_is_left_out_is_counted(ckpt, pictures, capsys):
    (pictures / "broken.jpg").unlink()
    for name in (".thumbnails/a.png", "film.mp4", "notes.txt"):
        (pictures / name).parent.mkdir(exist_ok=True)
        (pictures / name).touch()
    assert main([f"ckpt={ckpt}", f"images={pictures}"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert printed.err == (
        "left out: hidden files and folders, thumbnails and bins (1): .thumbnails; left out: "
        "files of unknown kind (1): film.mp4\n"
    )


@pytest.mark.slow
def test_pictures_that_come_later_are_added(ckpt, pictures, capsys):
    table = pictures.parent / "captions.csv"
    arguments = [f"ckpt={ckpt}", f"images={pictures}", f"out={table}"]
    main(arguments)
    Image.new("RGB", (64, 64), "green").save(pictures / "z.png")
    main(arguments)
    assert "captions made: 1, there already: 2, pictures without: 1" in capsys.readouterr().out
    assert len(rows(table)) == 3


@pytest.mark.slow
def test_a_killed_job_goes_on_and_writes_each_picture_once(ckpt, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    for number in range(1, 200):
        (tmp_path / f"{number}.png").symlink_to(tmp_path / "0.png")
    table = tmp_path / "captions.csv"
    arguments = [f"ckpt={ckpt}", f"images={tmp_path}", f"out={table}"]
    process = subprocess.Popen(
        [sys.executable, "-m", VERB, *arguments], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    while not (table.exists() and table.stat().st_size > 200):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(rows(table))
    assert 0 < before < 200
    done = run(tmp_path, *arguments, module=VERB)
    assert done.returncode == 0, done.stderr
    assert f"captions made: {200 - before}, there already: {before}" in done.stdout
    named = [Path(path).name for path, _ in rows(table)]
    assert sorted(named) == sorted(f"{number}.png" for number in range(200))


@pytest.mark.slow
def test_the_list_of_pictures_can_come_by_standard_input(ckpt, pictures):
    command = [sys.executable, "-m", VERB, f"ckpt={ckpt}", "images=-", "out=metadata.jsonl"]
    names = b"a.png\0sub/a.png\0./a.png\0https://example.org/b.jpg\0"
    done = subprocess.run(command, cwd=pictures, input=names, capture_output=True)
    assert done.returncode == 1
    assert b"https://example.org/b.jpg cannot be read as a picture: nothing is" in done.stderr
    lines = (pictures / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in lines] == ["a.png", "sub/a.png"]


@pytest.mark.slow
def test_a_text_is_put_beside_each_picture(ckpt, captioner, pictures, capsys):
    (pictures / "a.txt").write_text("mine")
    assert main([f"ckpt={ckpt}", f"images={pictures}", "out=sidecar"]) == 1
    assert (pictures / "a.txt").read_text() == "mine"
    caption = captioner(pictures / "sub" / "a.png")
    assert (pictures / "sub" / "a.txt").read_text() == f"{caption}\n"
    assert "captions made: 1, there already: 1, pictures without: 1" in capsys.readouterr().out


@pytest.mark.slow
def test_another_search_says_other_things(ckpt, pictures, capsys):
    arguments = [f"ckpt={ckpt}", f"images={pictures / 'a.png'}", "search=sample"]
    said = set()
    for seed in range(4):
        assert main([*arguments, "search.temperature=5", f"search.seed={seed}"]) == 0
        said.add(capsys.readouterr().out)
    assert len(said) > 1


@pytest.mark.slow
def test_the_training_pictures_of_a_folder_may_choose(
    ckpt, captioner, pictures, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    picture = pictures / "a.png"
    arguments = [f"ckpt={ckpt}", f"images={picture}", f"data={folder / 'data'}"]
    assert main([*arguments, "rerank=neighbours"]) == 0
    captioner.fit_rerank(folder / "data")
    assert capsys.readouterr().out == f"{picture}\t{captioner(picture)}\n"


@pytest.mark.slow
def test_a_table_goes_on_where_the_training_captions_are_the_same(
    ckpt, pictures, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "data", tmp_path / "data")
    (tmp_path / "data" / "val-red.png").write_bytes(b"broken, and of no use here")
    arguments = [f"ckpt={ckpt}", f"images={pictures / 'a.png'}", "rerank=neighbours", "out=all.csv"]
    assert main([*arguments, "data=data"]) == 0
    assert main([*arguments, f"data={tmp_path}/data/"]) == 0
    assert "there already: 1" in capsys.readouterr().out
    table = tmp_path / "data" / "captions.csv"
    table.write_text(table.read_text().replace("square", "thing"))
    assert main([*arguments, "data=data"]) == 1
    assert "all.csv has captions of another search" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_is_not_gone_on_with_where_the_training_pictures_are_others(
    ckpt, pictures, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "data", tmp_path / "data")
    arguments = [f"ckpt={ckpt}", f"images={pictures / 'a.png'}", "rerank=neighbours", "out=all.csv"]
    assert main([*arguments, "data=data"]) == 0
    shutil.copy("data/train-blue.png", "data/train-red.png")
    assert main([*arguments, "data=data"]) == 1
    assert "all.csv has captions of another search" in capsys.readouterr().err


def test_a_search_takes_the_users_values():
    assert group_node("search", "beam", {"search.width": "3"})["width"] == 3
    assert group_node("search", "sample", {"search.top_p": "0.5"})["top_p"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ckpt=a", "images=b", "out=c.json"], "it ends with .csv or .jsonl, or is the word"),
        (["ckpt=a", "images=b", "overwrite=yes"], "overwrite=yes: it is true or false"),
        (["ckpt=a", "image=b"], "did you mean images=?"),
        (["images=b"], "ckpt= is missing"),
        (["ckpt=a", "images=b", "width=0"], "search.width=0: it is too small"),
        (["ckpt=a", "images=b", "width=x"], "search.width=x: it is a whole number"),
        (["ckpt=a", "images=b", "search=sample", "width=3"], "no search.width, only"),
        (["ckpt=a", "images=b", "search=best"], "it is beam, consensus"),
        (["ckpt=a", "images=b", "rerank=neighbours"], "rerank=neighbours needs data=FOLDER"),
        (["ckpt=a", "images=b", "data=c"], "leave it out with search=beam"),
        (["ckpt=a", "images=b", "search=neighbors", "data=c"], "it is beam, consensus"),
        (["ckpt=a", "images=nowhere"], "there is no such file or folder"),
        (["ckpt=nowhere", f"images={__file__}"], "there is no checkpoint nowhere"),
        (["ckpt=a", f"images={__file__}", "device=tpu"], "device=tpu is not here"),
    ],
)
def test_what_is_wrong_is_a_sentence(capsys, arguments, told):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1


def test_a_search_names_its_keys():
    with pytest.raises(UserError, match=r"only search\.samples, search\.temperature"):
        group_node("search", "sample", {"search.groups": "3"})


def test_a_name_does_not_reach_the_terminal_raw():
    name = os.fsdecode(b"a\n\x1b[31mcaf\xe9")
    assert printable(name) == r"a\n\x1b[31mcaf\udce9"
    assert printable("é 日本.jpg") == "é 日本.jpg"
