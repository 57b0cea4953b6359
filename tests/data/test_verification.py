"""What `verify` finds in a folder, what it prints and how it exits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from caption_folders import write_csv
from PIL import Image, PngImagePlugin

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


def write_captions(folder: Path, *rows: tuple[str, str], splits=SPLITS) -> None:
    write_csv(folder / "captions.csv", [(name, text, splits.get(name, "")) for name, text in rows])


def test_sound_folder(folder, capsys):
    assert command.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "ERROR" not in printed
    assert printed.endswith("ready to train on\n")


def test_counts_and_lengths(folder):
    write_captions(folder, ("a.png", "one"), ("a.png", "one two three"), ("b.png", "one two"))
    report = verify(str(folder), images=False)
    assert report.counts == {"train": (1, 2), "val": (1, 1), "test": (0, 0), None: (0, 0)}
    assert report.words == [1, 2, 3]
    assert "words in a caption: shortest 1, 25 % 1, median 2" in str(report)


def test_words_are_counted_by_the_tokenizer(folder):
    write_captions(folder, ("a.png", "a dog's ball ."), ("b.png", "he cannot swim, no!"))
    assert verify(str(folder), images=False).words == [4, 5]


def test_sentences_without_blanks_are_an_error(folder, capsys):
    write_captions(folder, *((name, "一个女人躺在海水里。") for name in COLOURS))
    assert command.main([str(folder), "fast=true"]) == 1
    assert "ERROR       5  captions that are one word, in a script" in capsys.readouterr().out


def test_a_source_is_verified_with_its_own_arguments(folder):
    report = verify(CaptionFolder(str(folder), layout="csv"), images=False)
    assert report.counts["train"] == (2, 2)


def phone(path):
    pytest.importorskip("pillow_heif").from_pillow(Image.new("RGB", (64, 64))).save(path)


def floats(path):
    Image.new("F", (8, 8), 0.5).save(path, "TIFF")


def many_pixels(path):
    Image.new("1", (10_000, 9000)).save(path, "PNG")


def half_of_a_png(path):
    Image.effect_noise((64, 64), 50).save(path, "PNG")
    os.truncate(path, 1000)


def half_of_a_large_jpeg(path):
    Image.effect_noise((2000, 2000), 90).save(path, "JPEG")
    os.truncate(path, path.stat().st_size // 2)


def no_image(path):
    path.write_text("<html>not found</html>")


def postscript(path):
    Image.new("RGB", (8, 8)).save(path, "EPS")


def text_of_any_size(path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * 3_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=info)


SOUND = [phone, text_of_any_size]
DAMAGED = [floats, many_pixels, half_of_a_png, half_of_a_large_jpeg, no_image, postscript]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("write", [*SOUND, *DAMAGED, Path.mkdir])
def test_a_file_is_judged_by_what_training_and_captioning_read_it_with(tmp_path, write):
    write(tmp_path / "a.png")
    reasons = []
    try:
        load_image(str(tmp_path / "a.png"))
    except UserError as error:
        reasons.append(str(error))
    record = Record("a.png", str(tmp_path / "a.png"), ("x",), "train")
    assert check_images([record])[UNREADABLE] == reasons
    assert bool(reasons) == (write not in SOUND)


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
    findings = verify(folder).findings
    assert findings["images without caption"] == [str(folder / "day" / "pink.jfif")]


def test_a_table_finds_what_a_folder_hides(folder):
    (folder / ".cache").mkdir()
    (folder / "a.png").rename(folder / ".cache" / "a.png")
    (folder / "b.png").rename(folder / "b.odd")
    splits = {".cache/a.png": "train", "b.odd": "val", "c.png": "val", "d.png": "train"}
    write_captions(folder, *((name, "x") for name in splits), splits=splits)
    assert verify(folder).errors == []


def test_equal_images_across_splits_are_an_error(folder):
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    report = verify(folder)
    assert report.findings[LEAKED] == ["a.png (train), b.png (val)"]
    assert report.errors == [LEAKED]


def test_equal_images_within_a_split_are_a_note(folder):
    (folder / "d.png").write_bytes((folder / "b.png").read_bytes())
    report = verify(folder)
    assert report.findings[REPEATED] == ["b.png (val), d.png (val)"]
    assert report.errors == []


def test_fast_opens_no_image(folder, capsys):
    (folder / "a.png").write_text("broken")
    assert command.main([str(folder), "fast=true"]) == 0
    assert "the images were not opened" in capsys.readouterr().out


def test_findings_are_printed_with_count_place_and_advice(folder, capsys):
    rows = [("a.png", "x"), ("b.png", "👍"), ("gone.png", "x"), ("gone.png", "y"), ("d.png", "x")]
    write_captions(folder, *rows, ("e.png", "x"), ("a.png", "&nbsp;"))
    assert command.main([str(folder)]) == 1
    printed = capsys.readouterr().out
    table = folder / "captions.csv"
    for part in (
        "ERROR       2  empty captions: write them or delete their lines\n",
        f" {table}:3 (b.png): '👍'\n",
        "note        1  ids that name no image\n               gone.png\n",
        f"note        2  captions of such ids\n               {table}:4\n",
        f"note        1  images without caption\n               {folder / 'c.png'}\n",
        "1 of these need your hand (ERROR)",
    ):
        assert part in printed


def test_five_examples_at_most(folder):
    write_captions(folder, ("a.png", "x"), ("b.png", "x"), *((f"{n}.png", "x") for n in range(7)))
    printed = str(verify(folder, images=False))
    assert "               4.png\n               …\n" in printed
    assert "5.png" not in printed


def test_too_few_images_are_an_error_as_in_training(folder):
    write_captions(folder, ("a.png", "x"), ("e.png", "x"))
    assert verify(folder, images=False).findings[FEW] == ["val: 0 of 2 images"]
    write_captions(folder, ("a.png", "x"), ("b.png", "x"))
    report = verify(folder, images=False)
    assert report.findings[FEW] == ["train: 1 of 2 images", "val: 1 of 2 images"]
    assert report.errors == [FEW]
    with pytest.raises(UserError, match="the train split has 1 of the 2 images"):
        group_by_split(CaptionFolder(str(folder)).records())


def test_folder_without_captions(folder):
    write_captions(folder)
    assert "no image in the train split" in verify(folder).errors[0]


def test_no_folder_is_one_message_and_no_traceback(tmp_path, capsys):
    assert command.main([str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'no'} is not a folder\n")


def test_layout_can_be_chosen(folder):
    (folder / "captions.txt").write_text("image,caption\na.png,x\n")
    assert command.main([str(folder), "fast=true", "layout=csv"]) == 0


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


def test_names_that_a_terminal_cannot_show_are_escaped(folder):
    write_captions(folder, ("gone-ä.png", "x"), splits={"gone-ä.png": "train"})
    done = subprocess.run(
        [sys.executable, "-m", "captioning.verify", str(folder), "fast=true"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
    )
    assert done.returncode == 1
    assert b"gone-\\xe4.png" in done.stdout


def test_a_broken_image_in_no_split_is_no_fault_as_in_training(folder):
    (folder / "f.png").write_text("broken")
    write_captions(folder, *((name, "x") for name in (*COLOURS, "f.png")))
    report = verify(folder)
    assert report.errors == []
    assert report.findings[NO_SPLIT] == ["f.png"]


@pytest.mark.flickr8k
@pytest.mark.skipif("FLICKR8K" not in os.environ, reason="FLICKR8K names no folder")
def test_the_real_corpus():
    report = verify(os.environ["FLICKR8K"], images=False)
    assert report.counts["train"] == (6000, 30000)
    assert report.counts["val"] == (1000, 5000)
    assert report.findings["ids that name no image"] == ["2258277193_586949ec62.jpg.1"]
    assert report.errors == []
