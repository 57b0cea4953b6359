"""A name that nearly matches a file means it where only one can be meant, else it is an error."""

import logging
import re
import unicodedata
from pathlib import Path

import pytest
from caption_folders import COLUMNS, write_csv
from hypothesis import given
from hypothesis import strategies as st

from captioning import UserError
from captioning.data.image_names import ImageFinder
from captioning.data.readers import MATCHED, NEAR, NO_FILE, TWO_SPLITS, CaptionFolder
from captioning.data.verification import verify


def folder(root: Path, files, *rows, columns=COLUMNS) -> CaptionFolder:
    """Write a table and empty image files, of which only the names are read."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    write_csv(root / "captions.csv", [row[: len(columns)] for row in rows], columns)
    return CaptionFolder(str(root))


def row(name: str, split: str = "train") -> tuple[str, str, str]:
    return (name, "a dog", split)


NEARLY = {
    "Unicode form": ("cafe\u0301 정.jpg", unicodedata.normalize("NFC", "cafe\u0301 정.jpg")),
    "case": ("DSC1.JPG", "dsc1.jpg"),
    "ending": ("a.jpg", "a"),
    "another ending": ("a.jpg", "a.png"),
    "a dot, no ending": ("v1.5.jpg", "v1.5"),
    "backslash": ("images/a.jpg", "images\\a.jpg"),
    "drive": ("images/a.jpg", "C:\\Users\\me\\images\\a.jpg"),
    "another drive": ("pics/a.jpg", "D:/old/a.jpg"),
    "absolute": ("pics/a.jpg", "/kaggle/input/flickr8k/Images/a.jpg"),
    "address": ("a.jpg", "https://host.example/data/a.jpg"),
    "above": ("a.jpg", "../elsewhere/a.jpg"),
    "sub-folder": ("imgs/a.tif", "a.tif"),
    "sub-folder of a folder": ("dogs/full/a.jpg", "dogs/a.jpg"),
    "folder too many": ("a.jpg", "mine/a.jpg"),
    "folder of images by another name": ("Images/a.jpg", "Flicker8k_Dataset/a.jpg"),
    "all at once": ("Pics/É.JPG", "c:\\x\\pics\\e\u0301.png"),
}


@pytest.mark.parametrize(("file", "name"), NEARLY.values(), ids=NEARLY)
def test_a_name_that_can_mean_one_file_means_it(tmp_path, file, name):
    (record,) = folder(tmp_path, [file, "other/b.jpg"], row(name)).records()
    assert (record.image_id, record.path) == (name, str(tmp_path / file))


def test_a_file_of_the_same_ending_comes_before_others(tmp_path):
    (record,) = folder(tmp_path, ["Images/DSC1.JPG", "masks/DSC1.png"], row("DSC1.jpg")).records()
    assert record.path == str(tmp_path / "Images/DSC1.JPG")


NOT_SURE = {
    "two endings": (["a.jpg", "a.png"], "a", "it can be a.jpg or a.png"),
    "two cases": (["aB.jpg", "Ab.jpg"], "ab.jpg", "it can be Ab.jpg or aB.jpg"),
    "two folders": (["x/a.jpg", "y/a.jpg"], "a.jpg", "it can be x/a.jpg or y/a.jpg"),
    "case or folder": (["a.JPG", "x/a.jpg"], "a.jpg", "it can be a.JPG or x/a.jpg"),
    "many folders": ([f"{n}/a.jpg" for n in range(20)], "C:\\x\\a.jpg", "it can be 0/a.jpg or"),
    "another folder": (["cats/a.jpg"], "dogs/a.jpg", "near is cats/a.jpg"),
    "a folder that is there": (["a.jpg", "dogs/b.jpg"], "dogs/a.jpg", "near is a.jpg"),
}


@pytest.mark.parametrize(("files", "name", "reason"), NOT_SURE.values(), ids=NOT_SURE)
def test_a_name_that_can_mean_several_is_an_error_with_the_files(tmp_path, files, name, reason):
    source = folder(tmp_path, [*files, "c.jpg"], row("c.jpg"), row(name))
    with pytest.raises(UserError, match=re.escape(f"{name} (train: {tmp_path}/captions.csv:3)")):
        source.records()
    assert reason in source.read()[1][NEAR][0]


def test_other_folders_do_not_hide_the_right_one(tmp_path):
    files = [f"{number}/image.JPG" for number in range(20)]
    source = folder(tmp_path, files, *(row(f"E:\\set\\{n}\\image.jpg") for n in range(20)))
    assert [record.path for record in source.records()] == [str(tmp_path / file) for file in files]


@pytest.mark.parametrize("name", ["DSC1.jpg", "DSC1.png", "DSC1", "x/DSC1.JPG"])
def test_a_file_stays_with_the_row_that_names_it_exactly(tmp_path, name):
    """The other row may be of an image that is missing: its captions belong to no other."""
    source = folder(tmp_path, ["DSC1.JPG"], row("DSC1.JPG"), row(name))
    (record,), findings = source.read()
    assert record.captions == ("a dog",)
    assert f"is named DSC1.JPG at {tmp_path}/captions.csv:2" in findings[NEAR][0]


def test_two_names_that_come_near_one_file_are_both_in_doubt(tmp_path):
    source = folder(tmp_path, ["a.jpg"], row("dogs/a.jpg"), row("cats/a.jpg"))
    records, findings = source.read()
    assert (records, len(findings[NEAR])) == ([], 2)


def test_slashes_and_unicode_form_alone_are_the_same_name(tmp_path):
    rows = [row("images/é.jpg"), row("images\\e\u0301.jpg")]
    (record,), findings = folder(tmp_path, ["images/é.jpg"], *rows).read()
    assert (record.image_id, len(record.captions)) == ("images/é.jpg", 2)
    assert not findings[NEAR]


def test_matched_names_are_noted_with_their_number(tmp_path, caplog):
    files = ["a.JPG", "b.JPG", "x/c.jpg", "images/d.jpg"]
    source = folder(tmp_path, files, row("a.jpg"), row("b.jpg"), row("c"), row("d.jpg"))
    with caplog.at_level(logging.WARNING):
        source.records()
    expected = ["a.jpg is a.JPG", "b.jpg is b.JPG", "c is x/c.jpg"]
    assert source.read()[1][MATCHED] == expected
    assert f"{MATCHED} (3): {expected[0]}" in caplog.text
    assert f"note        3  {MATCHED}" in str(verify(source, images=False))


def test_split_lists_and_captions_may_name_a_file_differently(tmp_path):
    source = folder(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "captions.txt").write_text("image,caption\na,a dog\nB.JPG,a cat\n")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b\n")
    splits = [(record.image_id, record.split) for record in source.records()]
    assert splits == [("a", "train"), ("B.JPG", "val")]


@pytest.mark.parametrize(
    "names",
    [
        ("images/a.jpg", "a.jpg"),
        ("./images/a.jpg", "images/a.jpg"),
        ("images/a.jpg", "link/a.jpg"),
        ("images/a.jpg", "again.jpg"),
    ],
)
def test_one_image_under_two_names_is_in_two_splits(tmp_path, names):
    source = folder(tmp_path, ["images/a.jpg"], row(names[0]), row(names[1], "val"))
    (tmp_path / "link").symlink_to(tmp_path / "images")
    (tmp_path / "again.jpg").symlink_to(tmp_path / "images/a.jpg")
    with pytest.raises(UserError, match=TWO_SPLITS):
        source.records()


def test_one_image_under_two_names_gets_one_drawn_split(tmp_path):
    names = [f"{number}.jpg" for number in range(30)]
    rows = [(name, "a dog") for image in names for name in (image, f"./images/{image}")]
    files = [f"images/{name}" for name in names]
    records = folder(tmp_path, files, *rows, columns=COLUMNS[:2]).records()
    assert [record.image_id for record in records] == names
    assert all(len(record.captions) == 2 for record in records)


def test_missing_and_doubtful_names_are_errors_but_may_be_skipped(tmp_path, caplog):
    names = ["a.jpg", "b", "gone.jpg"]
    source = folder(tmp_path, ["a.jpg", "b.jpg", "b.png"], *map(row, names), columns=COLUMNS[:2])
    report = verify(source, images=False)
    assert {NEAR, NO_FILE} <= {*report.errors}
    assert report.findings[NO_FILE] == [f"gone.jpg ({tmp_path}/captions.csv:4)"]
    source.skip_unreadable = True
    with caplog.at_level(logging.WARNING):
        assert [record.image_id for record in source.records()] == ["a.jpg"]
    assert f"left out: {NEAR} (1): b (" in caplog.text


# Whatever the names

names = st.text("abcäßéŁ정é ._-", min_size=1).map(str.strip).filter(lambda name: name.strip("."))
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


def match_near(files, name):
    return ImageFinder(Path("/r"), {f"/r/{file}" for file in files}).match_near(name)


def folded_stem(path):
    stem = path.rpartition("/")[2].removesuffix(".jpg")
    return unicodedata.normalize("NFC", stem).casefold()


@given(st.sets(paths.map("{}.jpg".format), max_size=6), paths)
def test_a_match_is_a_file_of_that_name_in_other_letters(files, name):
    if path := match_near(files, name).path:
        assert path.removeprefix("/r/") in files
        assert folded_stem(path) == folded_stem(name)


@given(st.sets(paths.map("{}.jpg".format), min_size=1, max_size=6), st.data())
def test_a_name_changed_on_its_way_means_its_file_or_is_in_doubt(files, data):
    file = data.draw(st.sampled_from(sorted(files)))
    foreign = "C:\\me\\" + file.replace("/", "\\")
    changed = [unicodedata.normalize("NFD", file), file.upper(), file.removesuffix(".jpg"), foreign]
    match = match_near(files, data.draw(st.sampled_from(changed)))
    assert match.path == f"/r/{file}" or (match.path is None and match.note)
