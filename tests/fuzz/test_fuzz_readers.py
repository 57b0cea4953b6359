"""Captions, splits, judgements and lists of images from strangers."""

import csv
import json

import pytest

from captioning.data.image_list import find_images
from captioning.data.readers import CaptionFolder
from captioning.data.tokenizer import detokenize, tokenize
from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.judgement import read_crowd, read_expert

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TOKENS = b"".join(
    b"%d.jpg#%d\tA dog , number %d , runs .\n" % (n, k, 10 * n + k)
    for n in range(4)
    for k in range(5)
)
KAGGLE = (
    b'image,caption\n1.jpg,A dog runs .\n2.jpg,"A dog, asleep ."\r\n3.jpg,"""Dog"" says a sign"\n'
)
TABLE = b"image,caption,split\n1.jpg,a dog,train\n2.jpg,a cat,val\n3.jpg,\xc3\xa9t\xc3\xa9,test\n"
SPLIT_TABLE = b"image,caption,split\n1.jpg,a dog,train\n3.jpg,a dog,\n"
SENTENCES = {"filepath": "x", "sentences": [{"raw": "A dog ."}]}
IMAGES = [
    {"filename": f"{n}.jpg", "split": split} | SENTENCES
    for n, split in enumerate(("train", "restval", "val", "test"))
]
KARPATHY = json.dumps({"images": IMAGES, "dataset": "flickr8k"}).encode()
JSON_LINES = b'{"file_name": "1.jpg", "text": "a dog", "split": null}\n' * 3
ANNOTATIONS = [{"image_id": 1, "id": 2, "caption": "A dog ."}]
COCO_IMAGES = [{"id": 1, "file_name": "1.jpg"}]
COCO = json.dumps({"images": COCO_IMAGES, "annotations": ANNOTATIONS}).encode()
SEMICOLONS = b"sep=;\n" + TABLE.replace(b",", b";")
LIST = b"1.jpg\n2.jpg\r\n3.jpg\n"
EXPERT = b"1.jpg\t2.jpg#1\t1\t2\t4\n2.jpg\t3.jpg#0\t3\t3\t1\n"
CROWD = b"1.jpg\t2.jpg#1\t0.5\t2\t2\n2.jpg\t3.jpg#0\t1\t3\t0\n"


@pytest.fixture
def folder(tmp_path):
    for number in range(1, 4):
        (tmp_path / f"{number}.jpg").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file", "seeds", "beside"),
    [
        ("flickr8k", "Flickr8k.token.txt", [TOKENS], {}),
        ("split lists", "Flickr_8k.trainImages.txt", [LIST], {"Flickr8k.token.txt": TOKENS}),
        ("kaggle", "captions.txt", [KAGGLE, TABLE], {}),
        ("karpathy", "dataset.json", [KARPATHY, KARPATHY.replace(b'"x"', b"[" * 3000)], {}),
        (
            "csv",
            "captions.csv",
            [TABLE, KAGGLE, SEMICOLONS, SEMICOLONS.decode().encode("utf-16")],
            {},
        ),
        ("json lines", "metadata.jsonl", [JSON_LINES], {}),
        ("coco", "captions_val2017.json", [COCO], {}),
        ("sidecar", "1.txt", [b"a dog\n"], {}),
        (
            "tables of splits",
            "train.csv",
            [SPLIT_TABLE],
            {"val.csv": b"image,caption\n2.jpg,a cat\n"},
        ),
    ],
)
def test_captions_and_splits(folder, fuzz, name, file, seeds, beside):
    for path, content in beside.items():
        (folder / path).write_bytes(content)

    def read(data):
        (folder / file).write_bytes(data)
        source = CaptionFolder(str(folder), skip_unreadable=True)
        source.prepare()
        records, _ = source.read()
        assert len({record.image_id for record in records}) == len(records)
        assert all(isinstance(caption, str) for record in records for caption in record.captions)
        source.records()

    fuzz(name, seeds, read, 1000)


def test_image_names(folder, fuzz):
    (folder / "sub").mkdir()
    (folder / "sub/1.JPG").touch()

    def read(data):
        name = data.decode("utf-8", "ignore").replace("\0", "")
        with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", "caption"], [name, "a dog"], ["1.jpg", "a"]])
        records, _ = CaptionFolder(str(folder)).read()
        assert len({record.path for record in records}) == len(records)

    fuzz("image names", [b"2", b"C:\\me\\sub\\1.jpg", "sub/É.png".encode()], read, 1000)


@pytest.mark.parametrize(
    ("file", "seed", "read_file"),
    [
        ("ExpertAnnotations.txt", EXPERT, read_expert),
        ("CrowdFlowerAnnotations.txt", CROWD, read_crowd),
    ],
    ids=["expert", "crowd"],
)
def test_judgements(folder, fuzz, file, seed, read_file):
    (folder / "Flickr8k.token.txt").write_bytes(TOKENS)

    def read(data):
        (folder / file).write_bytes(data)
        read_file(folder)

    fuzz(file, [seed], read, 1000)


def test_words_and_vocabularies(fuzz):
    def read(data):
        words = tokenize(data.decode("utf-8", "surrogateescape"))
        assert tokenize(detokenize(words)) is not None
        vocabulary = Vocabulary.from_captions([data.decode("utf-8", "replace")])
        assert vocabulary.decode(vocabulary.encode(detokenize(words))) is not None
        assert len(vocabulary.sha256) == 64

    fuzz("words", [TOKENS, KAGGLE, "d'or (a) “b” ½ 't is don't <a> &amp;".encode()], read, 1500)


def test_lists_of_images(fuzz):
    seeds = [b"a.jpg\nb/c.png\n", b"a.jpg\0b\nc.png\0", '"a.jpg"\nb.jpg'.encode("utf-16")]
    fuzz("lists of images", seeds, lambda data: find_images("-", data), 1000)
