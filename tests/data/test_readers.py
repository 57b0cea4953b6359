"""Four layouts in, the same records out; and every mistake named with its place."""

import csv
import json
import logging
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioning import UserError
from captioning.data.caption_checks import NO_BLANKS, has_word, lacks_blanks
from captioning.data.layouts import read_csv, read_flickr8k, read_karpathy
from captioning.data.readers import CaptionFolder, seeded_split
from captioning.data.records import SPLITS, Record
from captioning.data.tokenizer import tokenize

NAMES = ("a.jpg", "b.jpg", "c.jpg")
CAPTIONS = {name: (f"{name} one", f'{name} "two", two') for name in NAMES}
TRICKY = ("None", "null", "NA", "nan", "N/A", '"', 'a "b", c', "zażółć 你好 🐈", " x ", "a\u2028b")
captions = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def pictures(folder: Path, names=NAMES) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(folder / name, "JPEG")


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def table(path: Path, rows, header=("image", "caption")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tokens(path: Path, captions=CAPTIONS) -> Path:
    lines = (
        f"{name}#{k}\t{text}" for name, texts in captions.items() for k, text in enumerate(texts)
    )
    return write(path, *lines)


def lists(folder: Path, **splits: tuple[str, ...]) -> None:
    for split, names in splits.items():
        write(folder / f"Flickr_8k.{split}Images.txt", *names)


def karpathy(path: Path, entries) -> Path:
    return write(path, json.dumps({"images": entries, "dataset": "flickr8k"}))


def entry(name: str, split: str, **more) -> dict:
    return {
        "filename": name,
        "split": split,
        "sentences": [{"raw": text, "tokens": []} for text in CAPTIONS[name]],
    } | more


def flickr8k(root: Path, folder: str = "Flicker8k_Dataset", text: str = "Flickr8k_text") -> Path:
    pictures(root / folder)
    tokens(root / text / "Flickr8k.token.txt")
    lists(root / text, train=("a.jpg",), dev=("b.jpg",), test=("c.jpg",))
    return root


def own(root: Path, *rows: tuple[str, str, str]) -> Path:
    """A folder with a table of our own and the three pictures."""
    pictures(root)
    table(root / "captions.csv", rows, ("image", "caption", "split"))
    return root


def expected(folder: Path, splits=SPLITS) -> list[Record]:
    return [
        Record(name, str(folder / name), CAPTIONS[name], split)
        for name, split in zip(NAMES, splits, strict=True)
    ]


def error(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        CaptionFolder(str(root), **options).records()
    return str(caught.value)


# The four layouts


@pytest.mark.parametrize("folder", ["Flicker8k_Dataset", "Flickr8k_Dataset", "Images"])
@pytest.mark.parametrize("text", ["Flickr8k_text", "."])
def test_original_layout(tmp_path, folder, text):
    flickr8k(tmp_path, folder, text)
    assert CaptionFolder(str(tmp_path)).records() == expected(tmp_path / folder)


def test_a_picture_in_no_official_list_has_no_split(tmp_path):
    flickr8k(tmp_path)
    (tmp_path / "Flickr8k_text/Flickr_8k.testImages.txt").unlink()
    folder = tmp_path / "Flicker8k_Dataset"
    assert CaptionFolder(str(tmp_path)).records() == expected(folder, ("train", "val", None))


def test_windows_line_ends(tmp_path):
    flickr8k(tmp_path)
    for path in (tmp_path / "Flickr8k_text").iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert CaptionFolder(str(tmp_path)).records() == expected(tmp_path / "Flicker8k_Dataset")


def test_kaggle_layout_is_split_by_picture(tmp_path):
    names = [f"{number}.jpg" for number in range(20)]
    pictures(tmp_path / "Images", names)
    table(tmp_path / "captions.txt", [(name, text) for name in names for text in ("x", "y")])
    records = CaptionFolder(str(tmp_path), split_seed=3).records()
    assert [record.split for record in records] == [seeded_split(name, 3) for name in names]
    assert all(record.captions == ("x", "y") for record in records)


def test_kaggle_layout_takes_the_official_lists_beside_it(tmp_path):
    pictures(tmp_path / "Images")
    rows = [(name, text) for name in NAMES for text in CAPTIONS[name]]
    table(tmp_path / "captions.txt", rows)
    lists(tmp_path, train=("a.jpg",), dev=("b.jpg",), test=("c.jpg",))
    assert CaptionFolder(str(tmp_path)).records() == expected(tmp_path / "Images")


@pytest.mark.parametrize("folder", ["Flicker8k_Dataset", "Images", "images", "."])
def test_karpathy_layout(tmp_path, folder):
    pictures(tmp_path / folder)
    entries = [entry("a.jpg", "restval"), entry("b.jpg", "val"), entry("c.jpg", "test")]
    karpathy(tmp_path / "dataset_flickr8k.json", entries)
    assert CaptionFolder(str(tmp_path)).records() == expected(tmp_path / folder)


@pytest.mark.parametrize("folder", ["", "images/"])
def test_coco_as_karpathy_splits_it(tmp_path, folder):
    """His dataset_coco.json beside the release's train2014/ and val2014/."""
    splits = {
        f"{place}2014/COCO_{place}2014_{number:012}.jpg": split
        for number, (place, split) in enumerate(
            [("train", "train"), ("val", "restval"), ("val", "val"), ("val", "test")]
        )
    }
    pictures(tmp_path / folder, splits)
    entries = []
    for path, split in splits.items():
        filepath, filename = path.split("/")
        sentence = {"tokens": ["a", "dog"], "raw": "A dog.", "imgid": 0, "sentid": 1}
        entries.append(
            {"filepath": filepath, "filename": filename, "split": split, "cocoid": 9, "imgid": 0}
            | {"sentids": [1], "sentences": [sentence] * 5}
        )
    karpathy(tmp_path / "dataset_coco.json", entries)
    records, findings = CaptionFolder(str(tmp_path)).read()
    assert [record.split for record in records] == ["train", "train", "val", "test"]
    assert [record.path for record in records] == [str(tmp_path / folder / path) for path in splits]
    assert records[1].captions == ("A dog.",) * 5
    assert not any(findings.values())


@pytest.mark.parametrize("folder", ["flickr30k-images", "flickr30k_images"])
def test_flickr30k_as_karpathy_splits_it(tmp_path, folder):
    pictures(tmp_path / folder, ["a.jpg"])
    karpathy(tmp_path / "dataset_flickr30k.json", [entry("a.jpg", "train")])
    (record,) = CaptionFolder(str(tmp_path)).records()
    assert record.path == str(tmp_path / folder / "a.jpg")


@pytest.mark.parametrize("folder", ["val2014", "images/val2014", "images"])
def test_karpathy_file_paths(tmp_path, folder):
    pictures(tmp_path / folder)
    entries = [entry(name, "train", filepath="val2014") for name in NAMES]
    karpathy(tmp_path / "dataset.json", entries)
    records = CaptionFolder(str(tmp_path)).records()
    assert [record.path for record in records] == [str(tmp_path / folder / name) for name in NAMES]
    assert records[0].image_id == "val2014/a.jpg"


@pytest.mark.parametrize("folder", [".", "Images", "images"])
def test_table_of_ones_own(tmp_path, folder):
    pictures(tmp_path / folder)
    splits = dict(zip(NAMES, (" Train", "valid", "test"), strict=True))
    rows = [(name, text, splits[name]) for name in NAMES for text in CAPTIONS[name]]
    table(tmp_path / "mine.csv", rows, ("Image", "caption", "split"))
    assert CaptionFolder(str(tmp_path)).records() == expected(tmp_path / folder)


def test_table_may_name_pictures_in_subfolders(tmp_path):
    pictures(tmp_path, ["dogs/a.jpg", "cats/a.jpg"])
    table(tmp_path / "captions.csv", [("dogs/a.jpg", "dog", "train"), ("cats/a.jpg", "cat", "val")],
          ("image", "caption", "split"))  # fmt: skip
    records = CaptionFolder(str(tmp_path)).records()
    assert [record.image_id for record in records] == ["dogs/a.jpg", "cats/a.jpg"]


@pytest.mark.parametrize("name", ["val", "dev", "validation", "valid", "VAL"])
def test_names_of_the_validation_split(tmp_path, name):
    own(tmp_path, ("a.jpg", "x", "train"), ("b.jpg", "x", name))
    assert CaptionFolder(str(tmp_path)).records()[1].split == "val"


def test_captions_csv_is_preferred_to_other_tables(tmp_path):
    own(tmp_path, ("a.jpg", "x", "train"))
    table(tmp_path / "a_results.csv", [("1", "2")], ("epoch", "loss"))
    assert len(CaptionFolder(str(tmp_path)).records()) == 1


def test_a_stray_table_beside_the_original_layout_is_not_read(tmp_path):
    table(flickr8k(tmp_path) / "results.csv", [("1", "2")], ("epoch", "loss"))
    assert len(CaptionFolder(str(tmp_path)).records()) == 3


def test_hidden_files_of_a_mac_are_ignored(tmp_path):
    flickr8k(tmp_path)
    write(tmp_path / "._dataset.json", "binary")
    write(tmp_path / "Flicker8k_Dataset/._a.jpg", "binary")
    assert CaptionFolder(str(tmp_path)).read()[1]["pictures without caption"] == []


def test_hidden_tables_of_a_mac_are_ignored(tmp_path):
    own(tmp_path, ("a.jpg", "x", "train"))
    (tmp_path / "captions.csv").rename(tmp_path / "mine.csv")
    write(tmp_path / "._mine.csv", "binary")
    assert len(CaptionFolder(str(tmp_path)).records()) == 1


@pytest.mark.parametrize("root", [".", "../here", "./"])
def test_relative_roots_know_their_pictures(tmp_path, monkeypatch, root):
    own(tmp_path / "here", *((name, "x", "train") for name in NAMES))
    monkeypatch.chdir(tmp_path / "here")
    records, findings = CaptionFolder(root).read()
    assert len(records) == 3
    assert findings["pictures without caption"] == []


# Captions stay what they are


@settings(max_examples=200)
@given(st.lists(captions, min_size=1, max_size=4))
def test_any_caption_survives_csv(tmp_path_factory, texts):
    path = table(tmp_path_factory.getbasetemp() / "any.csv", [("a.jpg", text) for text in texts])
    assert [row.caption for row in read_csv(path)] == texts


@settings(max_examples=200)
@given(st.lists(captions, min_size=1, max_size=4), st.booleans())
def test_any_caption_survives_json(tmp_path_factory, texts, ascii_only):
    path = tmp_path_factory.getbasetemp() / "any.json"
    image = {"filename": "a.jpg", "split": "test", "sentences": [{"raw": text} for text in texts]}
    path.write_text(json.dumps({"images": [image]}, ensure_ascii=ascii_only), encoding="utf-8")
    assert [row.caption for row in read_karpathy(path)] == texts


@settings(max_examples=200)
@given(
    st.lists(captions.filter(lambda text: not set("\r\n\t") & set(text)), min_size=1, max_size=4)
)
def test_any_caption_survives_the_token_file(tmp_path_factory, texts):
    path = tokens(tmp_path_factory.getbasetemp() / "any.txt", {"a.jpg": texts})
    assert [row.caption for row in read_flickr8k(path)] == texts


@pytest.mark.parametrize("text", TRICKY)
def test_captions_that_pandas_would_change(tmp_path, text):
    own(tmp_path, ("a.jpg", text, "train"))
    assert CaptionFolder(str(tmp_path)).read()[0][0].captions == (text,)


def test_byte_order_mark(tmp_path):
    path = own(tmp_path, ("a.jpg", "x", "train")) / "captions.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert CaptionFolder(str(tmp_path)).records()[0].image_id == "a.jpg"


def test_rows_know_their_line_after_a_caption_of_two_lines(tmp_path):
    path = table(tmp_path / "captions.csv", [("a.jpg", "one\ntwo"), ("b.jpg", "x")])
    assert [row.where for row in read_csv(path)] == [f"{path}:2", f"{path}:4"]


# The seeded split


def test_seeded_split_has_80_10_10_percent():
    splits = [seeded_split(f"{number}.jpg", 0) for number in range(20_000)]
    assert [splits.count(split) / 20_000 for split in SPLITS] == pytest.approx(
        [0.8, 0.1, 0.1], abs=0.01
    )


def test_seed_changes_the_split():
    names = [f"{number}.jpg" for number in range(50)]
    assert [seeded_split(name, 0) for name in names] != [seeded_split(name, 1) for name in names]


def test_added_pictures_leave_the_split_of_the_others(tmp_path):
    names = [f"{number}.jpg" for number in range(30)]
    pictures(tmp_path, names)
    table(tmp_path / "captions.csv", [(name, "x") for name in names[10:]])
    before = CaptionFolder(str(tmp_path)).records()
    table(tmp_path / "captions.csv", [(name, "x") for name in names])
    assert CaptionFolder(str(tmp_path)).records()[10:] == before


# Mistakes


def test_missing_folder_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError) as caught:
        CaptionFolder(str(tmp_path / "no")).prepare()
    message = str(caught.value)
    assert f"{tmp_path / 'no'} is not a folder" in message
    assert f"python -m captioning.download flickr8k {tmp_path / 'no'}" in message
    assert "data=scenes" in message
    assert all(layout in message for layout in ("flickr8k ", "kaggle ", "karpathy ", "csv "))


def test_unknown_layout_shows_what_was_found(tmp_path):
    write(tmp_path / "notes.txt")
    (tmp_path / "pics").mkdir()
    assert "is not in any known layout; it holds notes.txt, pics/\n" in error(tmp_path)


def test_empty_folder(tmp_path):
    assert "it holds nothing\n" in error(tmp_path)


def test_folder_one_level_too_high(tmp_path):
    flickr8k(tmp_path / "flickr8k")
    assert f"is it {tmp_path / 'flickr8k'}?" in error(tmp_path)


def test_layout_that_is_not_there(tmp_path):
    flickr8k(tmp_path)
    assert "is not in the layout karpathy; it holds Flick" in error(tmp_path, layout="karpathy")


def test_misspelt_layout(tmp_path):
    assert "no layout is called 'coco'" in error(tmp_path, layout="coco")


def test_two_layouts_in_one_folder(tmp_path):
    karpathy(flickr8k(tmp_path) / "dataset.json", [entry("a.jpg", "train")])
    assert "choose with data.layout=flickr8k" in error(tmp_path)
    assert len(CaptionFolder(str(tmp_path), layout="karpathy").records()) == 1


def test_several_tables_and_no_captions_csv(tmp_path):
    table(tmp_path / "a.csv", [])
    table(tmp_path / "b.csv", [])
    assert "holds a.csv, b.csv: rename the one to read captions.csv" in error(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "val.csv", "test.csv"),
        ("train.csv", "dev.csv", "Test.csv"),
        ("captions_train.csv", "captions_validation.csv", "captions_test.csv"),
        ("train/captions.csv", "valid/captions.csv", "test/captions.csv"),
        ("train/metadata.csv", "val/metadata.csv", "test/metadata.csv"),
    ],
)
def test_a_table_a_split_is_one_data_set(tmp_path, names):
    pictures(tmp_path, ["images/a.jpg", "images/b.jpg", "images/c.jpg"])
    for file, image in zip(names, NAMES, strict=True):
        table(tmp_path / file, [(image, text) for text in CAPTIONS[image]])
    records, findings = CaptionFolder(str(tmp_path)).read()
    assert sorted(record[1:] for record in records) == [
        record[1:] for record in expected(tmp_path / "images")
    ]
    assert findings["tables that are not read"] == []


@pytest.mark.parametrize("below", ["", "images/"])
def test_the_images_of_a_folder_a_split_may_have_equal_names(tmp_path, below):
    for split in SPLITS:
        pictures(tmp_path / split, [f"{below}1.jpg"])
        table(tmp_path / split / "captions.csv", [("1.jpg", f"a {split}")])
    records = CaptionFolder(str(tmp_path)).records()
    assert sorted(record[1:] for record in records) == sorted(
        (str(tmp_path / split / below / "1.jpg"), (f"a {split}",), split) for split in SPLITS
    )


def test_tables_of_two_splits_do_not_share_an_image(tmp_path):
    pictures(tmp_path)
    table(tmp_path / "train.csv", [("a.jpg", "x"), ("b.jpg", "x")])
    table(tmp_path / "val.csv", [("b.jpg", "x"), ("c.jpg", "x")])
    assert "pictures in two splits (1): b.jpg (train: " in error(tmp_path)


def test_a_split_column_may_not_contradict_the_name_of_its_table(tmp_path):
    pictures(tmp_path)
    header = ("image", "caption", "split")
    table(tmp_path / "train.csv", [("a.jpg", "x", ""), ("b.jpg", "x", "test")], header)
    table(tmp_path / "val.csv", [("c.jpg", "x", "dev")], header)
    assert "train.csv:3: the split is test, but the table is of train" in error(tmp_path)


@pytest.mark.parametrize("names", [("a.csv", "train.csv"), ("a_train.csv", "b_val.csv")])
def test_tables_that_are_no_set_of_splits_are_not_read_as_one(tmp_path, names):
    for name in names:
        table(tmp_path / name, [("a.jpg", "x")])
    message = error(tmp_path)
    assert f"holds {names[0]}, {names[1]}: rename the one to read captions.csv" in message
    assert "as the others are not read then, first join what belongs together" in message


UNREAD = {
    "kaggle's table first": (
        ["captions.txt"],
        ["captions.csv"],
        "captions.txt is read instead; data.layout=csv (verify: layout=csv) reads it",
    ),
    "captions.csv first": (
        ["captions.csv"],
        ["more.csv", "more.tsv", "train.csv", "val.csv"],
        "captions.csv is read instead",
    ),
    "splits first": (
        ["train.csv", "val.csv"],
        ["labels.csv"],
        "train.csv, val.csv is read instead",
    ),
    "not folders below": (
        ["captions.csv"],
        ["train/captions.csv", "val/captions.csv"],
        "captions.csv is read instead",
    ),
    "no lists": (
        ["captions.csv"],
        ["Flickr_8k.trainImages.txt"],
        "captions.csv is read instead",
    ),
}


@pytest.mark.parametrize(("read", "unread", "how"), UNREAD.values(), ids=UNREAD)
def test_a_table_that_is_not_read_is_named(tmp_path, caplog, read, unread, how):
    pictures(tmp_path)
    for name in unread:
        table(tmp_path / name, [("c.jpg", "of another")])
    for name, image in zip(read, NAMES, strict=False):
        table(tmp_path / name, [(image, "of this", "train" * (image == "a.jpg"))],
              ("image", "caption", "split"))  # fmt: skip
    source = CaptionFolder(str(tmp_path))
    records, findings = source.read()
    assert {record.captions for record in records} == {("of this",)}
    assert findings["tables that are not read"] == [f"{name}: {how}" for name in unread]
    with caplog.at_level(logging.WARNING):
        source.records()
    assert f"tables that are not read ({len(unread)}): {unread[0]}: {how}" in caplog.text


def test_the_other_table_is_read_where_it_is_asked_for(tmp_path):
    pictures(tmp_path)
    table(tmp_path / "captions.txt", [("a.jpg", "x")])
    table(tmp_path / "captions.csv", [("b.jpg", "y")])
    (record,), findings = CaptionFolder(str(tmp_path), layout="csv").read()
    assert record.captions == ("y",)
    assert (
        "captions.txt: captions.csv is read instead; data.layout=kaggle"
        in (findings["tables that are not read"][0])
    )


# Captions that cannot be trained on


@pytest.mark.parametrize("layout", ["flickr8k", "kaggle", "karpathy", "csv"])
@pytest.mark.parametrize("text", ["...", "👍", "\u200b", "&nbsp;", "!!!"])
def test_a_caption_without_a_word_is_empty_in_every_layout(tmp_path, layout, text):
    pictures(tmp_path)
    captions = {name: (*CAPTIONS[name], text) for name in NAMES}
    rows = [(name, caption) for name, all_of in captions.items() for caption in all_of]
    if layout == "karpathy":
        sentences = [{"raw": caption} for caption in captions["a.jpg"]]
        karpathy(tmp_path / "dataset.json", [entry("a.jpg", "train", sentences=sentences)])
    elif layout == "flickr8k":
        tokens(tmp_path / "Flickr8k.token.txt", captions)
    else:
        table(tmp_path / ("captions.csv" if layout == "csv" else "captions.txt"), rows)
    assert f"): {text!r}" in (message := error(tmp_path))
    assert "empty captions (" in message


def test_sentences_without_blanks_are_refused_with_what_to_do(tmp_path):
    own(
        tmp_path,
        ("a.jpg", "一个女人躺在海水里。", "train"),
        ("b.jpg", "两只狗在草地上玩耍。", "val"),
    )
    message = error(tmp_path)
    assert "captions that are one word, in a script without blanks (2): " in message
    assert f"{tmp_path / 'captions.csv'}:2 (a.jpg): '一个女人躺在海水里。'" in message
    assert "put blanks between the words first, with a segmenter" in message


def test_segmented_sentences_are_read(tmp_path):
    own(tmp_path, ("a.jpg", "一个 女人 躺在 海水 里 。", "train"), ("b.jpg", "两 只 狗", "val"))
    assert len(CaptionFolder(str(tmp_path)).records()) == 2


def test_unknown_split(tmp_path):
    own(tmp_path, ("a.jpg", "x", "train"), ("b.jpg", "x", "trian"))
    assert f"{tmp_path / 'captions.csv'}:3: no split is called 'trian'" in error(tmp_path)


def test_unknown_split_in_json(tmp_path):
    karpathy(tmp_path / "dataset.json", [entry("a.jpg", "train"), entry("b.jpg", "holdout")])
    assert "dataset.json: images[1]: no split is called 'holdout'" in error(tmp_path)


def test_not_utf8(tmp_path):
    path = own(tmp_path, ("a.jpg", "x", "train")) / "captions.csv"
    path.write_bytes(path.read_bytes() + "a.jpg,caf\u00e9,train\n".encode("latin-1"))
    assert f"{path}:3: byte 45 of the file is not UTF-8" in error(tmp_path)


def test_other_columns(tmp_path):
    table(tmp_path / "captions.csv", [], ("image;caption",))
    assert "captions.csv:1: the columns are not image,caption[,split]" in error(tmp_path)


def test_comma_without_quotes(tmp_path):
    write(tmp_path / "captions.csv", "image,caption", "a.jpg,a man, a plan")
    assert "captions.csv:2: 3 cells for 2 columns: put quotes" in error(tmp_path)


def test_quote_that_never_closes(tmp_path):
    write(tmp_path / "captions.csv", "image,caption", 'a.jpg,"a man', "b.jpg,a plan")
    assert re.search(r"captions.csv:\d: not CSV, a quote too many", error(tmp_path))


def test_row_without_image(tmp_path):
    write(tmp_path / "captions.csv", "image,caption", ",a man")
    assert "captions.csv:2: the image has no name" in error(tmp_path)


@pytest.mark.parametrize("line", ["a.jpg a man", "a.jpg\ta man", "a.jpg#x\ta man", "#0\ta man"])
def test_line_of_the_token_file_that_makes_no_sense(tmp_path, line):
    write(tmp_path / "Flickr8k.token.txt", "a.jpg#0\tx", line)
    assert "Flickr8k.token.txt:2: not IMAGE.jpg#NUMBER, a tab" in error(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"images": 3}'])
def test_json_of_another_kind(tmp_path, text):
    write(tmp_path / "dataset.json", text)
    assert "there is no list `images`" in error(tmp_path)


def test_broken_json(tmp_path):
    write(tmp_path / "dataset.json", "{", '"images": [}')
    assert "dataset.json:2: not JSON" in error(tmp_path)


@pytest.mark.parametrize(
    "image", [3, {}, {"filename": "a.jpg"}, {"filename": "a.jpg", "sentences": [{"raw": None}]}]
)
def test_json_entry_without_what_is_needed(tmp_path, image):
    karpathy(tmp_path / "dataset.json", [image])
    assert "dataset.json: images[0]: no filename" in error(tmp_path)


def test_empty_captions_are_named_five_at_most(tmp_path):
    own(tmp_path, ("a.jpg", "x", "train"), *[("a.jpg", " ", "train")] * 7)
    message = error(tmp_path)
    assert "empty captions (7): " in message
    assert message.count("captions.csv:") == 5
    assert f"{tmp_path / 'captions.csv'}:3 (a.jpg)" in message


def test_picture_of_a_list_without_caption(tmp_path):
    flickr8k(tmp_path)
    tokens(tmp_path / "Flickr8k_text/Flickr8k.token.txt", {"a.jpg": ("x",), "b.jpg": ("x",)})
    where = f"c.jpg (test: {tmp_path / 'Flickr8k_text/Flickr_8k.testImages.txt'}:1)"
    assert f"pictures of a split without caption (1): {where}" in error(tmp_path)


def test_picture_of_a_list_that_is_not_there(tmp_path):
    (flickr8k(tmp_path) / "Flicker8k_Dataset/c.jpg").unlink()
    assert "pictures of a split that are not there (1): c.jpg (test: " in error(tmp_path)


def test_missing_pictures_may_be_skipped(tmp_path, caplog):
    (flickr8k(tmp_path) / "Flicker8k_Dataset/c.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        records = CaptionFolder(str(tmp_path), skip_unreadable=True).records()
    assert [record.image_id for record in records] == ["a.jpg", "b.jpg"]
    assert "left out: pictures of a split that are not there (1): c.jpg" in caplog.text


def test_id_without_picture_is_left_out_with_a_warning(tmp_path, caplog):
    flickr8k(tmp_path)
    tokens(tmp_path / "Flickr8k_text/Flickr8k.token.txt", CAPTIONS | {"a.jpg.1": ("x", "y")})
    with caplog.at_level(logging.WARNING):
        assert len(CaptionFolder(str(tmp_path)).records()) == 3
    assert "left out: ids that name no picture (1): a.jpg.1" in caplog.text


def test_picture_without_caption_is_left_out(tmp_path):
    pictures(flickr8k(tmp_path) / "Flicker8k_Dataset", ["d.jpg"])
    records, findings = CaptionFolder(str(tmp_path)).read()
    assert len(records) == 3
    assert findings["pictures without caption"] == [str(tmp_path / "Flicker8k_Dataset/d.jpg")]


def test_picture_in_two_splits(tmp_path):
    lists(flickr8k(tmp_path) / "Flickr8k_text", dev=("b.jpg", "a.jpg"))
    message = error(tmp_path)
    assert "pictures in two splits (1): a.jpg (train: " in message
    assert "Flickr_8k.devImages.txt:2" in message


def test_empty_train_split(tmp_path):
    own(tmp_path, ("a.jpg", "x", "val"))
    assert "no picture in the train split (1): 1 named, 1 found" in error(tmp_path)


def test_no_picture_at_all_says_where_they_were_looked_for(tmp_path):
    tokens(tmp_path / "Flickr8k.token.txt")
    (tmp_path / "Images").mkdir()
    message = error(tmp_path)
    assert f"3 named, 0 found in {tmp_path} and {tmp_path / 'Images'}" in message


# Which captions hold words


ENTITIES = st.sampled_from(["&nbsp;", "&NBSP;", "&amp;", "&#160;", "&ouml;", "½"])


WORDLESS = ("", " ", "...", "👍", "-", "?", "\u200b", "&nbsp;", '""', "--", "!!!", "♥", "❤️", "()",
            "&#160;", "&#8203;", "\u00ad", "。", "* * *", "_")  # fmt: skip


@pytest.mark.parametrize("caption", WORDLESS)
def test_captions_without_a_word(caption):
    assert not has_word(caption)


@pytest.mark.parametrize("caption", ["a", "5", "½", "狗", "a&nbsp;b", "é!", "&ouml;", "개"])
def test_captions_with_a_word(caption):
    assert has_word(caption)


@settings(max_examples=300)
@given(st.one_of(st.text(), st.lists(st.one_of(st.text(), ENTITIES)).map("".join)))
def test_a_word_is_what_the_tokenizer_leaves(caption):
    if not tokenize(caption):
        assert not has_word(caption)


SENTENCES = {  # a bar where a segmenter puts a blank
    "Chinese": ("一个|穿着|泳装|的|女人|躺在|海水|里。", "两|只|狗|在|草地|上面|玩耍"),
    "Japanese": ("黒い|犬|が|芝生|の|上|を|走っ|て|いる", "スケートボード|を|し|て|いる|男性"),
    "Thai": ("หมา|สี|ดำ|กำลัง|วิ่ง|บน|สนามหญ้า", "ผู้หญิง|คน|หนึ่ง|นั่ง|อยู่|บน|ม้านั่ง"),
    "Lao": ("ໝາ|ສີ|ດຳ|ກຳລັງ|ແລ່ນ|ຢູ່|ເທິງ|ຫຍ້າ",),
    "Khmer": ("ឆ្កែ|ពណ៌|ខ្មៅ|កំពុង|រត់|លើ|ស្មៅ",),
    "Burmese": ("ခွေး|တစ်|ကောင်|သည်|မြက်ခင်း|ပေါ်တွင်|ပြေးနေသည်",),
}  # fmt: skip


@pytest.mark.parametrize("language", SENTENCES)
def test_scripts_without_blanks(language):
    assert all(lacks_blanks(sentence.replace("|", "")) for sentence in SENTENCES[language])


@pytest.mark.parametrize("blank", [" ", "\u200b", "\u3000"])
@pytest.mark.parametrize("language", SENTENCES)
def test_scripts_without_blanks_whose_words_are_segmented(language, blank):
    assert not any(lacks_blanks(sentence.replace("|", blank)) for sentence in SENTENCES[language])


@pytest.mark.parametrize(
    "caption",
    [
        "a sign that says 北京欢迎你们大家 above a door",
        "검은 개가 잔디밭 위를 달리고 있다",
        "một con chó đen chạy trên bãi cỏ",
        "كلب أسود يركض على العشب",
        "एक काला कुत्ता घास पर दौड़ रहा है",
        "чёрная собака бежит по траве",
        "Donaudampfschifffahrtsgesellschaftskapitän",
    ],
)
def test_scripts_with_blanks(caption):
    assert not lacks_blanks(caption)


HAN = "一个女人在水里狗草地玩耍红色的车"


@given(st.lists(st.text(HAN, min_size=1, max_size=3), min_size=1).map(" ".join))
def test_words_of_one_to_three_characters_are_words(caption):
    assert not lacks_blanks(caption)


@given(st.text(HAN, min_size=4))
def test_a_sentence_without_blanks_is_none(caption):
    assert lacks_blanks(caption)


@pytest.mark.parametrize("others", [0, 30])
def test_a_stray_caption_among_many_is_no_fault_of_the_data(tmp_path, others):
    rows = [("a.jpg", "a dog runs", "train")] * others
    own(tmp_path, ("a.jpg", "一个女人躺在海水里", "train"), *rows)
    assert len(CaptionFolder(str(tmp_path)).read()[1][NO_BLANKS]) == (not others)


# Speed


def test_eight_thousand_pictures_are_read_in_under_two_seconds(tmp_path):
    (tmp_path / "Images").mkdir()
    names = [f"{number}.jpg" for number in range(8000)]
    for name in names:
        (tmp_path / "Images" / name).touch()
    table(tmp_path / "captions.txt", [(name, "a dog , a cat") for name in names for _ in range(5)])
    start = time.process_time()  # of this process alone: others may keep the machine busy
    assert len(CaptionFolder(str(tmp_path)).records()) == 8000
    assert time.process_time() - start < 2


def test_rows_are_of_one_file_below_the_working_folder_too(tmp_path, monkeypatch):
    own(tmp_path, ("a.JPG", "x", "train"), ("a.jpg", "y", "val"), ("b.jpg", "z", "train"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"differs in case|pictures in two splits"):
        CaptionFolder(".").records()


def test_links_to_one_file_are_one_image(tmp_path):
    pictures(tmp_path / "pics")
    root = tmp_path / "data"
    root.mkdir()
    for link in ("one", "two"):
        (root / link).symlink_to(tmp_path / "pics")
    (root / "again.jpg").symlink_to(tmp_path / "pics" / "b.jpg")
    rows = [("one/a.jpg", "x", "train"), ("two/a.jpg", "x", "val"), ("one/b.jpg", "x", "train")]
    table(root / "captions.csv", [*rows, ("again.jpg", "x", "val")], ("image", "caption", "split"))
    assert "pictures in two splits (2): one/a.jpg" in error(root)


@pytest.mark.parametrize("name", ["more.CSV", "captions2.txt", "annotations/captions.csv", "b.tsv"])
def test_every_table_that_is_not_read_is_named(name, tmp_path, caplog):
    own(tmp_path, ("a.jpg", "x", "train"), ("b.jpg", "x", "val"))
    write(tmp_path / name, "image,caption", "c.jpg,y")
    write(tmp_path / "a.txt", "a text beside an image")
    CaptionFolder(str(tmp_path)).records()
    assert f"tables that are not read (1): {name}: captions.csv is read instead" in caplog.text


def test_split_lists_are_known_by_nearly_their_names(tmp_path):
    flickr8k(tmp_path)
    folder = tmp_path / "Flickr8k_text"
    (folder / "Flickr_8k.trainImages.txt").rename(folder / "Flickr8k.trainimages.txt")
    (folder / "Flickr_8k.devImages.txt").rename(folder / "Flickr_8k.valImages.txt")
    assert [one.split for one in CaptionFolder(str(tmp_path)).records()] == [*SPLITS]


def test_splits_that_are_drawn_are_told(tmp_path, caplog):
    pictures(tmp_path)
    table(tmp_path / "captions.csv", [(name, "x") for name in NAMES])
    with caplog.at_level(logging.WARNING):
        _, findings = CaptionFolder(str(tmp_path)).read()
    assert findings[
        "images whose split is drawn, 80/10/10 by a hash of the name, as no file names any"
    ]


def test_a_column_that_is_there_twice_is_an_error(tmp_path):
    pictures(tmp_path)
    table(tmp_path / "captions.csv", [("a.jpg", "x", "y")], ("image", "caption", "caption"))
    assert "captions.csv:1: two columns are called caption" in error(tmp_path)


def test_a_folder_called_as_a_table_is_none(tmp_path):
    (tmp_path / "captions.csv").mkdir()
    assert "is not in any known layout" in error(tmp_path)
