"""All layouts give the same records, and what is wrong with a folder is named with its place."""

import json
import logging
import re
from pathlib import Path

import pytest
from caption_folders import write_csv, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning import UserError
from captioning.data.readers import (
    NO_BLANKS,
    READ,
    UNREAD,
    CaptionFolder,
    draw_split,
    has_word,
    lacks_blanks,
)
from captioning.data.records import SPLITS, Record
from captioning.data.tokenizer import tokenize

NAMES = ("a.jpg", "b.jpg", "c.jpg")
CAPTIONS = {name: (f"{name} one", f'{name} "two", two') for name in NAMES}
PAIR = ("image", "caption")


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_tokens(path: Path, captions=CAPTIONS) -> Path:
    numbered = ((name, k, text) for name, texts in captions.items() for k, text in enumerate(texts))
    return write(path, *(f"{name}#{k}\t{text}" for name, k, text in numbered))


def write_lists(folder: Path, **splits: tuple[str, ...]) -> None:
    for split, names in splits.items():
        write(folder / f"Flickr_8k.{split}Images.txt", *names)


def write_karpathy(path: Path, *entries) -> Path:
    return write(path, json.dumps({"images": entries, "dataset": "flickr8k"}))


def entry(name: str, split: str, **fields) -> dict:
    sentences = [{"raw": text, "tokens": []} for text in CAPTIONS.get(name, ())]
    return {"filename": name, "split": split, "sentences": sentences} | fields


def flickr8k(root: Path, folder: str = "Flicker8k_Dataset", text: str = "Flickr8k_text") -> Path:
    write_images(root / folder, NAMES)
    write_tokens(root / text / "Flickr8k.token.txt")
    write_lists(root / text, train=("a.jpg",), dev=("b.jpg",), test=("c.jpg",))
    return root


def own(root: Path, *rows: tuple[str, str, str]) -> Path:
    """Write a table of one's own and the three images."""
    write_images(root, NAMES)
    write_csv(root / "captions.csv", rows)
    return root


def expected(folder: Path, splits=SPLITS) -> list[Record]:
    return [
        Record(name, str(folder / name), CAPTIONS[name], split)
        for name, split in zip(NAMES, splits, strict=True)
    ]


def records(root: Path, **options) -> list[Record]:
    return CaptionFolder(str(root), **options).records()


def findings(root: Path, **options) -> dict[str, list[str]]:
    return CaptionFolder(str(root), **options).read()[1]


def error(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        records(root, **options)
    return str(caught.value)


# The layouts


@pytest.mark.parametrize("folder", ["Flicker8k_Dataset", "Flickr8k_Dataset", "Images"])
@pytest.mark.parametrize("text", ["Flickr8k_text", "."])
def test_original_layout(tmp_path, folder, text):
    flickr8k(tmp_path, folder, text)
    assert records(tmp_path) == expected(tmp_path / folder)


def test_an_image_in_no_official_list_has_no_split(tmp_path):
    flickr8k(tmp_path)
    (tmp_path / "Flickr8k_text/Flickr_8k.testImages.txt").unlink()
    assert records(tmp_path) == expected(tmp_path / "Flicker8k_Dataset", ("train", "val", None))


def test_kaggle_layout_is_split_by_image(tmp_path):
    names = [f"{number}.jpg" for number in range(20)]
    write_images(tmp_path / "Images", names)
    rows = [(name, text) for name in names for text in ("x", "y")]
    write_csv(tmp_path / "captions.txt", rows, PAIR)
    read = records(tmp_path, split_seed=3)
    assert [record.split for record in read] == [draw_split(name, 3) for name in names]
    assert all(record.captions == ("x", "y") for record in read)


def test_kaggle_layout_takes_the_official_lists_beside_it(tmp_path):
    write_images(tmp_path / "Images", NAMES)
    rows = [(name, text) for name in NAMES for text in CAPTIONS[name]]
    write_csv(tmp_path / "captions.txt", rows, PAIR)
    write_lists(tmp_path, train=("a.jpg",), dev=("b.jpg",), test=("c.jpg",))
    assert records(tmp_path) == expected(tmp_path / "Images")


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("dataset_flickr8k.json", "Flicker8k_Dataset"),
        ("dataset_flickr30k.json", "flickr30k-images"),
        ("dataset_flickr30k.json", "flickr30k_images"),
        ("dataset.json", "Images"),
        ("dataset.json", "images"),
        ("dataset.json", "."),
    ],
)
def test_karpathy_layout(tmp_path, file, folder):
    write_images(tmp_path / folder, NAMES)
    entries = [entry("a.jpg", "restval"), entry("b.jpg", "val"), entry("c.jpg", "test")]
    write_karpathy(tmp_path / file, *entries)
    assert records(tmp_path) == expected(tmp_path / folder)


@pytest.mark.parametrize("folder", ["", "images/"])
def test_coco_as_karpathy_splits_it(tmp_path, folder):
    """His dataset_coco.json beside the release's train2014/ and val2014/."""
    splits = {
        f"{place}2014/COCO_{place}2014_{number:012}.jpg": split
        for number, (place, split) in enumerate(
            [("train", "train"), ("val", "restval"), ("val", "val"), ("val", "test")]
        )
    }
    write_images(tmp_path / folder, splits)
    sentence = {"tokens": ["a", "dog"], "raw": "A dog.", "imgid": 0, "sentid": 1}
    fields = {"cocoid": 9, "imgid": 0, "sentids": [1], "sentences": [sentence] * 5}
    entries = [
        entry(Path(path).name, split, filepath=Path(path).parent.name, **fields)
        for path, split in splits.items()
    ]
    write_karpathy(tmp_path / "dataset_coco.json", *entries)
    read, found = CaptionFolder(str(tmp_path)).read()
    assert [record.split for record in read] == ["train", "train", "val", "test"]
    assert [record.path for record in read] == [str(tmp_path / folder / path) for path in splits]
    assert read[1].captions == ("A dog.",) * 5
    assert [kind for kind, examples in found.items() if examples] == [READ]


@pytest.mark.parametrize("folder", ["val2014", "images/val2014", "images"])
def test_karpathy_file_paths(tmp_path, folder):
    write_images(tmp_path / folder, NAMES)
    entries = [entry(name, "train", filepath="val2014") for name in NAMES]
    write_karpathy(tmp_path / "dataset.json", *entries)
    read = records(tmp_path)
    assert [record.path for record in read] == [str(tmp_path / folder / name) for name in NAMES]
    assert read[0].image_id == "val2014/a.jpg"


@pytest.mark.parametrize("folder", [".", "Images", "images"])
def test_table_of_ones_own(tmp_path, folder):
    write_images(tmp_path / folder, NAMES)
    splits = zip(NAMES, (" Train", "valid", "test"), strict=True)
    rows = [(name, text, split) for name, split in splits for text in CAPTIONS[name]]
    write_csv(tmp_path / "mine.csv", rows, ("Image", "caption", "split"))
    assert records(tmp_path) == expected(tmp_path / folder)


@pytest.mark.parametrize("name", ["val", "dev", "validation", "valid", "VAL"])
def test_names_of_the_validation_split(tmp_path, name):
    own(tmp_path, ("a.jpg", "x", "train"), ("b.jpg", "x", name))
    assert records(tmp_path)[1].split == "val"


def test_hidden_files_of_a_mac_are_ignored(tmp_path):
    own(tmp_path, *((name, "x", "train") for name in NAMES))
    (tmp_path / "captions.csv").rename(tmp_path / "mine.csv")
    for name in ("._mine.csv", "._dataset.json", "._a.jpg"):
        write(tmp_path / name, "binary")
    read, found = CaptionFolder(str(tmp_path)).read()
    assert (len(read), found["images without caption"]) == (3, [])


@pytest.mark.parametrize("root", [".", "../here", "./"])
def test_images_are_found_below_a_relative_root(tmp_path, monkeypatch, root):
    own(tmp_path / "here", *((name, "x", "train") for name in NAMES))
    monkeypatch.chdir(tmp_path / "here")
    read, found = CaptionFolder(root).read()
    assert (len(read), found["images without caption"]) == (3, [])


# Splits that are drawn


def test_drawn_splits_have_80_10_10_percent_and_depend_on_the_seed():
    splits = [draw_split(f"{number}.jpg", 0) for number in range(20_000)]
    shares = [splits.count(split) / 20_000 for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert splits != [draw_split(f"{number}.jpg", 1) for number in range(20_000)]


def test_added_images_leave_the_split_of_the_others(tmp_path):
    rows = [(f"{number}.jpg", "x") for number in range(30)]
    write_images(tmp_path, [name for name, _ in rows])
    write_csv(tmp_path / "captions.csv", rows[10:], PAIR)
    before = records(tmp_path)
    write_csv(tmp_path / "captions.csv", rows, PAIR)
    assert records(tmp_path)[10:] == before


def test_drawn_splits_are_noted(tmp_path):
    write_images(tmp_path, NAMES)
    write_csv(tmp_path / "captions.csv", [(name, "x") for name in NAMES], PAIR)
    kind = "images whose split is drawn, 80/10/10 by a hash of the name, as no file names any"
    assert findings(tmp_path)[kind] == [*NAMES]


# Which files are read


def test_missing_folder_says_how_to_get_one(tmp_path):
    root = tmp_path / "no"
    with pytest.raises(UserError) as caught:
        CaptionFolder(str(root)).prepare()
    for part in (f"{root} is not a folder", "python -m captioning.download flickr8k data/flickr8k",
                 "data=scenes", "flickr8k ", "kaggle ", "karpathy ", "csv "):  # fmt: skip
        assert part in str(caught.value)


def test_unknown_layout_shows_what_is_there(tmp_path):
    assert "it holds nothing\n" in error(tmp_path)
    write(tmp_path / "notes.txt")
    (tmp_path / "captions.csv").mkdir()
    message = "is not in any known layout; it holds captions.csv/, notes.txt"
    assert f"{message}\n" in error(tmp_path)
    flickr8k(tmp_path / "flickr8k")
    assert f"flickr8k/, notes.txt; is it {tmp_path / 'flickr8k'}?" in error(tmp_path)
    assert "is not in the layout karpathy; it holds" in error(tmp_path, layout="karpathy")
    assert "no layout is called 'coc'" in error(tmp_path, layout="coc")


def test_two_layouts_in_one_folder(tmp_path):
    write_karpathy(flickr8k(tmp_path) / "dataset.json", entry("a.jpg", "train"))
    assert "choose with data.layout=flickr8k" in error(tmp_path)
    assert len(records(tmp_path, layout="karpathy")) == 1
    write_csv(tmp_path / "captions.csv", [("a.jpg", "y", "train")])
    assert records(tmp_path, layout="csv")[0].captions == ("y",)


FILES_OF_SPLITS = [
    ("train.csv", "val.csv", "test.csv"),
    ("train.csv", "dev.csv", "Test.csv"),
    ("captions_train.csv", "captions_validation.csv", "captions_test.csv"),
    ("train/captions.csv", "valid/captions.csv", "test/captions.csv"),
    ("train/metadata.csv", "val/metadata.csv", "test/metadata.csv"),
]


@pytest.mark.parametrize("names", FILES_OF_SPLITS)
def test_a_table_a_split_is_one_data_set(tmp_path, names):
    write_images(tmp_path / "images", NAMES)
    for file, image in zip(names, NAMES, strict=True):
        write_csv(tmp_path / file, [(image, text) for text in CAPTIONS[image]], PAIR)
    read, found = CaptionFolder(str(tmp_path)).read()
    assert sorted(record[1:] for record in read) == [
        record[1:] for record in expected(tmp_path / "images")
    ]
    assert found[UNREAD] == []


@pytest.mark.parametrize("below", ["", "images/"])
def test_the_images_of_a_folder_a_split_may_have_equal_names(tmp_path, below):
    for split in SPLITS:
        write_images(tmp_path / split, [f"{below}1.jpg"])
        write_csv(tmp_path / split / "captions.csv", [("1.jpg", f"a {split}")], PAIR)
    assert {record[1:] for record in records(tmp_path)} == {
        (str(tmp_path / split / below / "1.jpg"), (f"a {split}",), split) for split in SPLITS
    }


NO_SPLITS = [("a.csv", "b.csv"), ("a.csv", "train.csv"), ("a_train.csv", "b_val.csv")]


@pytest.mark.parametrize("names", NO_SPLITS)
def test_tables_that_are_no_set_of_splits_are_not_read_as_one(tmp_path, names):
    for name in names:
        write_csv(tmp_path / name, [("a.jpg", "x")], PAIR)
    message = error(tmp_path)
    assert f"holds {names[0]}, {names[1]}: rename the one to read captions.csv" in message
    assert "which are not read then; first join what belongs together" in message


CSV_READ = "captions.csv is read instead"
NOT_READ = [
    (["captions.txt"], ["captions.csv", "results.csv"], "captions.txt is read instead"),
    (["captions.csv"], ["more.csv", "more.tsv", "train.csv", "val.csv"], CSV_READ),
    (["captions.csv"], ["train/captions.csv", "val/captions.csv"], CSV_READ),
    (["captions.csv"], ["Flickr_8k.trainImages.txt"], CSV_READ),
    (["captions.csv"], ["annotations/captions.csv", "captions2.txt", "more.CSV"], CSV_READ),
    (["train.csv", "val.csv"], ["labels.csv"], "train.csv, val.csv is read instead"),
]


@pytest.mark.parametrize(("read", "unread", "how"), NOT_READ)
def test_a_table_that_is_not_read_is_named(tmp_path, caplog, read, unread, how):
    write_images(tmp_path, NAMES)
    write(tmp_path / "a.txt", "a text beside an image")
    for name in unread:
        write_csv(tmp_path / name, [("c.jpg", "of another")], PAIR)
    for name, image in zip(read, NAMES, strict=False):
        write_csv(tmp_path / name, [(image, "of this", "train" * (image == "a.jpg"))])
    source = CaptionFolder(str(tmp_path))
    assert source.read()[1][UNREAD] == [f"{name}: {how}" for name in unread]
    with caplog.at_level(logging.WARNING):
        assert {record.captions for record in source.records()} == {("of this",)}
    assert f"{UNREAD} ({len(unread)}): {unread[0]}: {how}" in caplog.text


# Mistakes in captions and splits


def test_empty_captions_are_named_five_at_most(tmp_path):
    own(tmp_path, ("a.jpg", "x", "train"), *[("a.jpg", " ", "train")] * 7)
    message = error(tmp_path)
    assert "empty captions (7): " in message
    assert message.count("captions.csv:") == 5
    assert f"{tmp_path / 'captions.csv'}:3 (a.jpg)" in message


def test_sentences_without_blanks_are_refused_with_what_to_do(tmp_path):
    sentences = ("一个女人躺在海水里。", "两只狗在草地上玩耍。")
    own(tmp_path, ("a.jpg", sentences[0], "train"), ("b.jpg", sentences[1], "val"))
    message = error(tmp_path)
    assert "captions that are one word, in a script without blanks (2): " in message
    assert f"{tmp_path / 'captions.csv'}:2 (a.jpg): {sentences[0]!r}" in message
    assert "put blanks between the words first, with a segmenter" in message


@pytest.mark.parametrize("others", [0, 30])
def test_a_stray_caption_among_many_is_no_fault_of_the_data(tmp_path, others):
    rows = [("a.jpg", "a dog runs", "train")] * others
    own(tmp_path, ("a.jpg", "一个女人躺在海水里", "train"), *rows)
    assert len(findings(tmp_path)[NO_BLANKS]) == (not others)


def test_image_of_a_list_without_caption(tmp_path):
    text = flickr8k(tmp_path) / "Flickr8k_text"
    write_tokens(text / "Flickr8k.token.txt", {"a.jpg": ("x",), "b.jpg": ("x",)})
    where = f"c.jpg (test: {text / 'Flickr_8k.testImages.txt'}:1)"
    assert f"images of a split without caption (1): {where}" in error(tmp_path)


def test_missing_image_is_an_error_or_skipped(tmp_path, caplog):
    (flickr8k(tmp_path) / "Flicker8k_Dataset/c.jpg").unlink()
    assert "images of a split that are not there (1): c.jpg (test: " in error(tmp_path)
    with caplog.at_level(logging.WARNING):
        read = records(tmp_path, skip_unreadable=True)
    assert [record.image_id for record in read] == ["a.jpg", "b.jpg"]
    assert "left out: images of a split that are not there (1): c.jpg" in caplog.text


def test_images_without_caption_and_captions_without_image_are_left_out(tmp_path, caplog):
    write_images(flickr8k(tmp_path) / "Flicker8k_Dataset", ["d.jpg"])
    write_tokens(tmp_path / "Flickr8k_text/Flickr8k.token.txt", CAPTIONS | {"a.jpg.1": ("x", "y")})
    with caplog.at_level(logging.WARNING):
        assert len(records(tmp_path)) == 3
    assert "left out: ids that name no image (1): a.jpg.1 (" in caplog.text
    without = [str(tmp_path / "Flicker8k_Dataset/d.jpg")]
    assert findings(tmp_path)["images without caption"] == without


def test_image_in_two_splits(tmp_path):
    write_lists(flickr8k(tmp_path) / "Flickr8k_text", dev=("b.jpg", "a.jpg"))
    message = error(tmp_path)
    assert "images in two splits (1): a.jpg (val: " in message
    assert "Flickr_8k.devImages.txt:2" in message


def test_names_of_one_file_below_the_working_folder_are_one_image(tmp_path, monkeypatch):
    own(tmp_path, ("a.JPG", "x", "train"), ("a.jpg", "y", "val"), ("b.jpg", "z", "train"))
    monkeypatch.chdir(tmp_path)
    assert re.search(r"near is a.jpg|images in two splits", error(Path(".")))


def test_empty_train_split(tmp_path):
    own(tmp_path, ("a.jpg", "x", "val"))
    assert "no image in the train split (1): 1 named, 1 found" in error(tmp_path)


def test_no_image_at_all_says_where_they_were_looked_for(tmp_path):
    write_tokens(tmp_path / "Flickr8k.token.txt")
    (tmp_path / "Images").mkdir()
    assert f"3 named, 0 found in {tmp_path} and {tmp_path / 'Images'}" in error(tmp_path)


# Which captions hold words

ENTITIES = st.sampled_from(["&nbsp;", "&NBSP;", "&amp;", "&#160;", "&ouml;", "½"])
WORDLESS = ("", " ", "...", "👍", "-", "?", "\u200b", "&nbsp;", '""', "--", "!!!", "♥", "❤️", "()",
            "&#160;", "&#8203;", "\u00ad", "。", "* * *", "_")  # fmt: skip


def test_captions_with_and_without_a_word():
    assert not any(map(has_word, WORDLESS))
    assert all(map(has_word, ["a", "5", "½", "狗", "a&nbsp;b", "é!", "&ouml;", "개"]))


@settings(max_examples=300)
@given(st.one_of(st.text(), st.lists(st.one_of(st.text(), ENTITIES)).map("".join)))
def test_a_word_is_what_the_tokenizer_leaves(caption):
    if not tokenize(caption):
        assert not has_word(caption)


SENTENCES = {  # a bar where a segmenter puts a blank
    "Chinese": "一个|穿着|泳装|的|女人|躺在|海水|里。",
    "Japanese": "黒い|犬|が|芝生|の|上|を|走っ|て|いる",
    "Katakana": "スケートボード|を|し|て|いる|男性",
    "Thai": "หมา|สี|ดำ|กำลัง|วิ่ง|บน|สนามหญ้า",
    "Lao": "ໝາ|ສີ|ດຳ|ກຳລັງ|ແລ່ນ|ຢູ່|ເທິງ|ຫຍ້າ",
    "Khmer": "ឆ្កែ|ពណ៌|ខ្មៅ|កំពុង|រត់|លើ|ស្មៅ",
    "Burmese": "ခွေး|တစ်|ကောင်|သည်|မြက်ခင်း|ပေါ်တွင်|ပြေးနေသည်",
}
WITH_BLANKS = [
    "a sign that says 北京欢迎你们大家 above a door",
    "검은 개가 잔디밭 위를 달리고 있다",
    "một con chó đen chạy trên bãi cỏ",
    "كلب أسود يركض على العشب",
    "एक काला कुत्ता घास पर दौड़ रहा है",
    "чёрная собака бежит по траве",
    "Donaudampfschifffahrtsgesellschaftskapitän",
]
HAN = "一个女人在水里狗草地玩耍红色的车"


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_scripts_without_blanks(sentence):
    assert lacks_blanks(sentence.replace("|", ""))
    assert not any(lacks_blanks(sentence.replace("|", blank)) for blank in " \u200b\u3000")


def test_scripts_with_blanks():
    assert not any(map(lacks_blanks, WITH_BLANKS))


@given(st.lists(st.text(HAN, min_size=1, max_size=3), min_size=1).map(" ".join))
def test_words_of_one_to_three_characters_are_words(caption):
    assert not lacks_blanks(caption)


@given(st.text(HAN, min_size=4))
def test_a_sentence_without_blanks_is_none(caption):
    assert lacks_blanks(caption)


def test_a_split_column_may_not_contradict_the_name_of_its_table(tmp_path):
    write_images(tmp_path, NAMES)
    write_csv(tmp_path / "train.csv", [("a.jpg", "x", ""), ("b.jpg", "x", "test")])
    write_csv(tmp_path / "val.csv", [("c.jpg", "x", "dev")])
    assert "train.csv:3: the split is test, but the table is of train" in error(tmp_path)
