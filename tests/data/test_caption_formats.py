"""Caption files from anywhere: what is read, what is refused with its place, and round trips."""

import csv
import json
import os
from pathlib import Path

import pytest
from caption_folders import write_csv, write_images
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captioning import UserError
from captioning.data.caption_formats import read_flickr8k, read_json, read_table
from captioning.data.readers import NO_FILE, READ, UNREAD, CaptionFolder
from captioning.output.caption_tables import CaptionTable, Row, Sidecars

TRICKY = ["None", "NA", '"', 'a "b", c', "zażółć 你好 🐈", " x ", "a\u2028b", "a\r\nb;|\tc", ', "x']
captions = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
lists_of_captions = st.lists(captions, min_size=1, max_size=4)
MORE = "{0}a.jpg,x,train\n{0}b.jpg,é,val\n"
ROWS = MORE.format("")


def read(root: Path, **options):
    """Return the captions by image, and the findings, of a folder."""
    records, findings = CaptionFolder(str(root), **options).read()
    return {record.image_id: record.captions for record in records}, findings


# What we write is read again


@pytest.mark.parametrize("name", ["captions.csv", "metadata.csv", "metadata.jsonl", "sidecar"])
@given(
    captions=st.lists(
        captions.filter(lambda text: text[0] != "\ufeff" and text[-1] != "\r"),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=30)
@example(captions=TRICKY)
def test_what_captioning_writes_is_read_again(tmp_path_factory, name, captions):
    root = tmp_path_factory.mktemp("written")
    rows = [(f"{root}/ a, b/{n}\r\n ü.jpg", text) for n, text in enumerate(captions)]
    write_images(root, [image for image, _ in rows])
    table = Sidecars()
    if name != "sidecar":
        table = CaptionTable(f"{root}/{name}", {}, scores=["confidence"])
    table.write([Row(image, text, {"confidence": 0.5}) for image, text in rows])
    table.close()
    records, findings = CaptionFolder(str(root)).read()
    assert {(record.path, *record.captions) for record in records} == set(rows)
    assert findings[UNREAD] == []
    assert not any(kind.startswith("left out") for kind in findings)


@pytest.mark.parametrize("typed", ["mine/a.jpg", "./mine/a.jpg", "../here/mine/a.jpg", "{}/a.jpg"])
@pytest.mark.parametrize("root", ["here", "here/mine"])
def test_images_are_found_by_the_paths_that_were_typed(tmp_path, monkeypatch, typed, root):
    """Also where another image has the name, and from another working folder."""
    mine = tmp_path / "here/mine"
    write_images(mine, ["a.jpg", "sub/a.jpg"])
    write_csv(tmp_path / root / "captions.csv", [(typed.format(mine), "x")], ("image", "caption"))
    monkeypatch.chdir(tmp_path)
    ((record,), _) = CaptionFolder(root).read()
    assert os.path.samefile(record.path, mine / "a.jpg")


def test_a_name_of_other_bytes_than_utf8_is_refused(tmp_path):
    """It would stop the tables, pages and checkpoints of a training."""
    name = os.fsdecode(b"caf\xe9.jpg")
    write_images(tmp_path, [name])
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "x"}))
    assert read(tmp_path)[1][NO_FILE][0].startswith(r"caf\udce9.jpg (")


def test_a_text_beside_two_images_is_refused(tmp_path):
    write_images(tmp_path, ["a.jpg", "a.png"])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"a.txt is of .*a.jpg or .*a.png: rename the other"):
        read(tmp_path)


@given(lists_of_captions, st.sampled_from(["karpathy", "coco"]), st.booleans())
def test_any_caption_survives_json(tmp_path_factory, texts, form, ascii_only):
    path = tmp_path_factory.getbasetemp() / "any.json"
    image = {"filename": "a.jpg", "split": "test", "sentences": [{"raw": text} for text in texts]}
    content = {"images": [image]}
    if form == "coco":
        annotations = [{"image_id": 7, "id": n, "caption": text} for n, text in enumerate(texts)]
        content = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": annotations}
    path.write_text(json.dumps(content, ensure_ascii=ascii_only), encoding="utf-8")
    assert [row.caption for row in read_json(path, [])] == texts


@given(st.lists(captions.filter(lambda text: not {*"\r\n\t"} & {*text}), min_size=1))
def test_any_caption_survives_the_token_file(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text("".join(f"a.jpg#0\t{text}\n" for text in texts), encoding="utf-8")
    assert [row.caption for row in read_flickr8k(path, [])] == texts


@given(lists_of_captions, st.sampled_from(",;\t|"), st.sampled_from(["utf-8-sig", "utf-16"]))
@example(TRICKY, "|", "utf-8-sig")
def test_any_caption_survives_a_table_of_any_separator(tmp_path_factory, texts, sep, encoding):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        rows = [("image", "caption"), *(("a.jpg", text) for text in texts)]
        csv.writer(file, delimiter=sep).writerows(rows)
    assert [row.caption for row in read_table(path, [])] == texts


# Tables from elsewhere

SEP = {";": "semicolons", "\t": "tabs", "|": "bars"}
TABLES = {
    **{name: ("image,caption,split\n" + ROWS).replace(",", sep) for sep, name in SEP.items()},
    "Excel's line": "sep=;\r\n" + ("image,caption,split\n" + ROWS).replace(",", ";"),
    "old Mac": ("image,caption,split\n" + ROWS).replace("\n", "\r"),
    "blanks": "Image , CAPTION, split \n" + ROWS.replace(",", ", "),
    "blanks before quotes": 'image,caption,split\na.jpg,x, train\nb.jpg, "é", val\n',
    "names of others": "id,file_name,text,split\n" + MORE.format("1,"),
    "pandas' index": ",image,caption,split\n" + MORE.format("0,"),
    "empty rows": "image,caption,split\n,,\n" + ROWS + "\n,,\n",
    "a second text": "text,image,caption,split\n" + MORE.format("no,"),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_table_from_elsewhere(tmp_path, content, encoding):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "captions.csv").write_bytes(content.encode(encoding))
    records, findings = CaptionFolder(str(tmp_path)).read()
    assert [record[2:] for record in records] == [(("x",), "train"), (("é",), "val")]
    assert findings[READ][0].endswith("UTF-16" if encoding == "utf-16" else "UTF-8")


def test_what_was_decided_is_reported(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    path = tmp_path / "captions.tsv"
    path.write_text("n\tcomment\timage_name\n0\tx\ta.jpg\n")
    assert read(tmp_path)[1][READ] == [f"{path}: image_name, comment, separated by tabs, in UTF-8"]


def test_flickr30k(tmp_path):
    """Separated by bars and blanks, with quotes that quote nothing."""
    write_images(tmp_path / "flickr30k_images", ["1.jpg"])
    table = tmp_path / "results.csv"
    lines = ["image_name| comment_number| comment", '1.jpg| 0| "Go" , says a man .', "1.jpg| 1| x"]
    table.write_text("\n".join(lines))
    assert read(tmp_path)[0] == {"1.jpg": (' "Go" , says a man .', " x")}
    table.write_text("\n".join([*lines, "1.jpg| 2   A dog"]))
    with pytest.raises(UserError, match=r"csv:4: 2 cells for 3 columns: a '\|' is missing: '1.jpg"):
        read(tmp_path)


def test_several_captions_a_row(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    rows = [("a.jpg", "x", "y"), ("b.jpg", "z", "")]
    write_csv(tmp_path / "metadata.csv", rows, ("file_name", "caption_0", "caption_1"))
    assert read(tmp_path)[0] == {"a.jpg": ("x", "y"), "b.jpg": ("z",)}


@pytest.mark.parametrize(
    "places", [("train2017", "val2017"), ("images/train2017", "images/val2017")]
)
@pytest.mark.parametrize("below", ["annotations", "."])
def test_coco_as_it_is_published(tmp_path, places, below):
    (tmp_path / below).mkdir(exist_ok=True)
    for number, (place, split) in enumerate(zip(places, ("train", "val"), strict=True)):
        write_images(tmp_path / place, [f"{number:012}.jpg"])
        images = [{"id": number, "file_name": f"{number:012}.jpg"}]
        annotations = [{"image_id": number, "caption": text} for text in ("a dog", "a cat")]
        content = {"images": images, "annotations": annotations}
        path = tmp_path / below / f"captions_{split}2017.json"
        path.write_text(json.dumps(content))
        path.with_name(f"instances_{split}2017.json").touch()
    records, findings = CaptionFolder(str(tmp_path)).read()
    assert [record.split for record in records] == ["train", "val"]
    assert [Path(record.path).parent for record in records] == [
        tmp_path / place for place in places
    ]
    assert records[0].captions == ("a dog", "a cat")
    assert findings[UNREAD] == []


def test_the_line_of_a_row_after_a_caption_of_two_lines(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a.jpg", "one\ntwo"), ("b.jpg", "x")], ("image", "text"))
    assert [row.where for row in read_table(path, [])] == [f"{path}:2", f"{path}:4"]
    path.write_text("sep=,\n" + path.read_text())
    assert [row.where for row in read_table(path, [])] == [f"{path}:3", f"{path}:5"]


# Mistakes


def karpathy(**image) -> str:
    sentences = [{"raw": "a dog"}]
    return json.dumps(
        {"images": [{"filename": "a.jpg", "split": "", "sentences": sentences} | image]}
    )


def coco(image, annotation) -> str:
    return json.dumps({"images": [image], "annotations": [annotation]})


TOKEN_ERROR = "Flickr8k.token.txt:2: not IMAGE.jpg#NUMBER, a tab"
COCO_ERROR = "captions_val2017.json: not Karpathy's JSON or COCO's captions: no "
MISTAKES = [
    ("captions.csv", "image,caption,split\na.jpg,x,train\nb.jpg,x,trian",
     "captions.csv:3: no split is called 'trian'"),
    *[("captions.csv", ",".join(header), f"captions.csv:1: the columns are {header}: call one of")
      for header in (["name", "text"], ["image", "image", "text"], [])],
    ("captions.csv", "image,text,split,split", "the columns are ['image', 'text', 'split'"),
    ("captions.csv", "a.jpg; a man\nb.jpg; a plan",
     "captions.csv:1: no header, but a row of 'a.jpg': put image;caption above it"),
    ("captions.csv", "image,caption\na.jpg,a man, a plan",
     "captions.csv:2: 3 cells for 2 columns: put quotes around a caption that holds a ','"),
    ("captions.csv", "image\tcaption\na.jpg a man",
     r"captions.csv:2: 1 cells for 2 columns: a '\t' is missing: 'a.jpg a man'"),
    ("captions.csv", 'image,caption\na.jpg,"a man\nb.jpg,a plan', "not CSV, a quote too many"),
    ("captions.csv", "image,caption\n,a man", "captions.csv:2: the image has no name"),
    ("metadata.jsonl", '{"file_name": "a.jpg", "text": "x"}\n{"file_name": "b.jpg"}',
     "metadata.jsonl:2: the columns are ['file_name']: call one of them"),
    *[("metadata.jsonl", f'{{"file_name": "a.jpg", "text": "x"}}\n{line}',
       "metadata.jsonl:2: not JSON of texts by name")
      for line in ("{", "3", '{"file_name": "a.jpg", "text": ["x"]}', '{"image": 3, "text": "x"}')],
    ("Flickr8k.token.txt", "a.jpg#0\tx\na.jpg a man", TOKEN_ERROR),
    ("Flickr8k.token.txt", "a.jpg#0\tx\na.jpg\ta man", TOKEN_ERROR),
    ("Flickr8k.token.txt", "a.jpg#0\tx\na.jpg#x\ta man", TOKEN_ERROR),
    ("Flickr8k.token.txt", "a.jpg#0\tx\n#0\ta man", TOKEN_ERROR),
    *[("dataset.json", content, "dataset.json: not Karpathy's JSON or COCO's captions: no ")
      for content in ("{}", "[1]", '{"images": 3}')],
    ("dataset.json", '{\n"images": [}', "dataset.json:2: not JSON"),
    ("dataset.json", karpathy(split="holdout"), "images[0]: no split is called 'holdout'"),
    *[("dataset.json", json.dumps({"images": [image]}), "dataset.json: images[0]: no filename")
      for image in (3, {}, {"filename": "a.jpg"})],
    ("dataset.json", karpathy(sentences=[{"raw": None}]), "dataset.json: images[0]: no filename"),
    ("captions_val2017.json", coco({"id": 1}, {"image_id": 1, "caption": "x"}), COCO_ERROR),
    ("captions_val2017.json", coco({"id": 1, "file_name": "a"}, {"image_id": 1}), COCO_ERROR),
    ("captions_val2017.json", coco({"id": 1, "file_name": "a"}, {"image_id": 2, "caption": "x"}),
     COCO_ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("file", "content", "message"), MISTAKES)
def test_a_mistake_in_a_file_is_named_with_its_place(tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError) as caught:
        CaptionFolder(str(tmp_path)).records()
    assert message in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_another_encoding_is_refused_with_the_line_and_not_guessed(tmp_path, end):
    path = tmp_path / "captions.csv"
    path.write_bytes(end.join(["image,caption", "a.jpg,x", "b.jpg,läuft", ""]).encode("cp1252"))
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert f"{path}:3: not UTF-8; in cp1252 it reads 'b.jpg,läuft': save" in str(caught.value)
