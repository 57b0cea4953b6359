"""What `verify` finds in a folder, what it prints and how it exits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from caption_folders import write_csv
from PIL import Image

from captioning import UserError
from captioning import verify as command
from captioning.data.image_files import load_image
from captioning.data.image_list import HIDDEN, UNKNOWN
from captioning.data.readers import NO_SPLIT, CaptionFolder
from captioning.data.records import Record
from captioning.data.verification import FEW, LEAKED, REPEATED, UNREADABLE, check_images, verify
from captioning.features.datamodule import group_by_split

COLOURS = {"a.png": "red", "b.png": "green", "c.png": "blue", "d.png": "white", "e.png": "black"}
SPLITS = {"a.png": "train", "b.png": "val", "c.png": "test", "d.png": "val", "e.png": "train"}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    write_captions(tmp_path, *((name, f"a {colour} thing") for name, colour in COLOURS.items()))
    return tmp_path


def check(folder: Path | str, **options):
    return verify(CaptionFolder(str(folder)), **options)


def write_captions(folder: Path, *rows: tuple[str, str], splits=SPLITS) -> None:
    write_csv(folder / "captions.csv", [(name, text, splits.get(name, "")) for name, text in rows])


def test_sound_folder(folder, capsys):
    assert command.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "ERROR" not in printed
    assert printed.endswith("ready to train on\n")


def test_fast_opens_no_image_and_layout_chooses_a_table(folder, capsys):
    (folder / "a.png").write_text("broken")
    (folder / "captions.txt").write_text("image,caption\na.png,x\n")
    assert command.main([str(folder), "fast=true", "layout=csv"]) == 0
    assert "the images were not opened" in capsys.readouterr().out


def test_counts_and_lengths(folder):
    write_captions(folder, ("a.png", "one"), ("a.png", "one two's"), ("b.png", "one two ."))
    report = check(folder, images=False)
    assert report.counts == {"train": (1, 2), "val": (1, 1), "test": (0, 0), None: (0, 0)}
    assert report.words == [1, 2, 3]
    assert "words in a caption: shortest 1, 25 % 1, median 2" in str(report)


def phone(path):
    pytest.importorskip("pillow_heif").from_pillow(Image.new("RGB", (64, 64))).save(path)


def half_of_a_png(path):
    Image.effect_noise((64, 64), 50).save(path, "PNG")
    os.truncate(path, 1000)


def no_image(path):
    path.write_text("<html>not found</html>")


@pytest.mark.parametrize("write", [phone, half_of_a_png, no_image, Path.mkdir])
def test_a_file_is_judged_by_what_training_and_captioning_read_it_with(tmp_path, write):
    write(tmp_path / "a.png")
    reasons = []
    try:
        load_image(str(tmp_path / "a.png"))
    except UserError as error:
        reasons.append(str(error))
    record = Record("a.png", str(tmp_path / "a.png"), ("x",), "train")
    assert check_images([record])[UNREADABLE] == reasons
    assert bool(reasons) == (write is not phone)


def test_what_is_left_out_is_reported_and_logged(folder, capsys, caplog):
    for name in (".thumbnails/a.png", "film.mp4", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert command.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"  1  {HIDDEN}\n               {folder / '.thumbnails'}\n" in printed
    assert f"  1  {UNKNOWN}\n               {folder / 'film.mp4'}\n" in printed
    CaptionFolder(str(folder)).records()
    assert f"{HIDDEN} (1): {folder / '.thumbnails'}" in caplog.text


def test_a_linked_folder_holds_images(folder, tmp_path_factory):
    day = tmp_path_factory.mktemp("day")
    Image.new("RGB", (8, 8), "pink").save(day / "pink.jfif")
    (folder / "day").symlink_to(day)
    (folder / "loop").symlink_to(".")
    findings = check(folder).findings
    assert findings["images without caption"] == [str(folder / "day" / "pink.jfif")]


def test_a_table_finds_what_a_folder_hides(folder):
    (folder / ".cache").mkdir()
    (folder / "a.png").rename(folder / ".cache" / "a.png")
    (folder / "b.png").rename(folder / "b.odd")
    splits = {".cache/a.png": "train", "b.odd": "val", "c.png": "val", "d.png": "train"}
    write_captions(folder, *((name, "x") for name in splits), splits=splits)
    assert check(folder).errors == []


def test_equal_images_are_an_error_across_splits_and_a_note_within_one(folder):
    (folder / "d.png").write_bytes((folder / "b.png").read_bytes())
    report = check(folder)
    assert report.findings[REPEATED] == ["b.png (val), d.png (val)"]
    assert report.errors == []
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    report = check(folder)
    assert report.findings[LEAKED] == ["a.png (train), c.png (test)"]
    assert report.errors == [LEAKED]


def test_findings_are_printed_with_count_place_and_advice(folder, capsys):
    rows = [("a.png", "x"), ("b.png", "👍"), ("gone.png", "x"), ("gone.png", "y"), ("d.png", "x")]
    write_captions(folder, *rows, ("e.png", "x"), ("a.png", "&nbsp;"))
    assert command.main([str(folder)]) == 1
    printed = capsys.readouterr().out
    table = folder / "captions.csv"
    for part in (
        "ERROR       2  empty captions: write them or delete their lines\n",
        f" {table}:3 (b.png): '👍'\n",
        f"note        1  ids that name no image\n               gone.png ({table}:4)\n",
        f"note        1  images without caption\n               {folder / 'c.png'}\n",
        "1 of these need your hand (ERROR)",
    ):
        assert part in printed


def test_too_few_images_are_an_error_as_in_training(folder):
    write_captions(folder, ("a.png", "x"), ("b.png", "x"))
    report = check(folder, images=False)
    assert report.findings[FEW] == ["train: 1 of 2 images", "val: 1 of 2 images"]
    assert report.errors == [FEW]
    with pytest.raises(UserError, match="the train split has 1 of the 2 images"):
        group_by_split(CaptionFolder(str(folder)).records())


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from captioning.verify import main\n"
        "main(['--help']); print({'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Say what is in a data folder")
    assert done.stdout.endswith("set()\n")


def test_names_that_a_terminal_cannot_show_are_escaped_and_five_shown(folder):
    names = [f"gone-ä{number}.png" for number in range(7)]
    write_captions(folder, *((name, "x") for name in names), splits=dict.fromkeys(names, "train"))
    done = subprocess.run(
        [sys.executable, "-m", "captioning.verify", str(folder), "fast=true"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
    )
    assert done.returncode == 1
    assert b"gone-\\xe44.png" in done.stdout
    assert b"gone-\\xe45.png" not in done.stdout


def test_a_broken_image_in_no_split_is_no_fault_as_in_training(folder):
    (folder / "f.png").write_text("broken")
    write_captions(folder, *((name, "x") for name in (*COLOURS, "f.png")))
    report = check(folder)
    assert report.errors == []
    assert report.findings[NO_SPLIT] == ["f.png"]


@pytest.mark.flickr8k
@pytest.mark.skipif("FLICKR8K" not in os.environ, reason="FLICKR8K names no folder")
def test_the_real_corpus():
    report = check(os.environ["FLICKR8K"], images=False)
    assert report.counts["train"] == (6000, 30000)
    assert report.counts["val"] == (1000, 5000)
    assert "2258277193_586949ec62.jpg.1 (" in report.findings["ids that name no image"][0]
    assert report.errors == []
