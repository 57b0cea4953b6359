import csv
import re
import time
from html.parser import HTMLParser
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
from PIL import Image

from captioning.data.image_files import load_image
from captioning.data.records import Record
from captioning.training.validation import Generated, ValidationCaptions
from captioning.web.gallery import Gallery, write_gallery


@pytest.fixture
def row(records):
    return Generated(records[0], "a red square", {"cider": 0.5})


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(path.read_text(encoding="utf-8").replace("<wbr>", ""))
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(path, rows):
    write_gallery(path, "run", {}, rows)
    return Page(path)


@pytest.mark.parametrize("sanity_checking", [False, True])
def test_a_validation_writes_all_captions_and_a_page_of_some(
    tmp_path, records, monkeypatch, sanity_checking
):
    rows = [
        Generated(record, "a red square", {"cider": float(number)})
        for number, record in enumerate(records[4:])
    ]
    monkeypatch.setattr(ValidationCaptions, "of", lambda trainer: rows)
    trainer = Mock(
        spec=pl.Trainer,
        sanity_checking=sanity_checking,
        is_global_zero=True,
        callback_metrics={"val/loss": 2, "val/cider": 1.25, "train/loss": 3},
    )
    folder = tmp_path / "run"
    Gallery(str(folder), images=2).on_validation_end(trainer, Mock(spec=pl.LightningModule))
    if sanity_checking:
        assert not folder.exists()
        return
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["image"] for line in table] == [record.image_id for record in records[4:]]
    expected = {"image": records[7].image_id, "path": records[7].path}
    assert table[3] == expected | {"caption": "a red square", "cider": "3.0"}
    page = Page(folder / "gallery.html")
    assert len(page.all("img")) == 2
    assert "val-red.png" in page.text and "val-blue.png" in page.text
    assert "Scores x100, except loss and words. images 4 loss 2.00 cider 125.0" in page.text


def test_thumbnails_are_small_jpegs_made_once(tmp_path, row):
    Image.new("RGB", (1000, 500), "red").save(row.record.path)
    (image,) = written(tmp_path / "gallery.html", [row]).all("img")
    source = tmp_path / image["src"]
    with Image.open(source) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (320, 160))
    made = source.stat().st_mtime_ns
    written(tmp_path / "gallery.html", [row])
    assert source.stat().st_mtime_ns == made


def test_another_image_of_the_same_name_has_its_own_thumbnail(tmp_path, row):
    for colour, rgb in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (1000, 500), colour).save(row.record.path)
        (image,) = written(tmp_path / "gallery.html", [row]).all("img")
        with Image.open(tmp_path / image["src"]) as thumbnail:
            assert thumbnail.getpixel((9, 9)) == pytest.approx(rgb, abs=9)


def test_an_image_of_several_rows_is_read_once(tmp_path, row, monkeypatch):
    paths = []

    def load(path):
        paths.append(path)
        time.sleep(0.02)  # long enough for another thread to begin, too
        return load_image(path)

    monkeypatch.setattr("captioning.web.gallery.load_image", load)
    page = written(tmp_path / "gallery.html", [row] * 20)
    assert paths == [row.record.path]
    assert len(page.all("img")) == 20


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "{{ title }}"]
)
def test_text_is_escaped(tmp_path, row, evil):
    def page_of(name, text):
        record = Record(text, row.record.path, (text,), "val")
        rows = [Generated(record, text, {text: 1.0})]
        write_gallery(tmp_path / name, text, {text: 1.0}, rows)
        return Page(tmp_path / name)

    harmless, page = page_of("harmless.html", "harmless"), page_of("evil.html", evil)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert page.text.count(evil) == 9  # twice the title, 3 texts, 2 scores, 2 orders


def test_the_page_fetches_nothing(tmp_path, row):
    page = written(tmp_path / "gallery.html", [row])
    links = [tag.get("src") or tag.get("href") for _, tag in page.tags]
    assert all(link.startswith(("gallery/", "data:")) for link in links if link)
    assert not re.search(r"https?:|url\(|@import", (tmp_path / "gallery.html").read_text())


def test_an_unreadable_image_leaves_a_blank(tmp_path, row):
    gone = row.record._replace(path=str(tmp_path / "gone.jpg"))
    page = written(tmp_path / "gallery.html", [row._replace(record=gone)])
    assert not page.all("img") and "the image cannot be read" in page.text
