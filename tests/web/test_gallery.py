import csv
import re
import time
from html.parser import HTMLParser

import pytest
from PIL import Image

from captioning.data.image_files import load_image
from captioning.data.records import Record
from captioning.training.validation import Generated
from captioning.web.gallery import Gallery, spread, write_captions, write_gallery


@pytest.fixture
def row(records):
    return Generated(records[0], "a red square", {"cider": 0.5})


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_fit_leaves_every_caption_in_the_csv(tmp_path, fit, records):
    fit(Gallery(str(tmp_path / "run"), images=2))
    with (tmp_path / "run" / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [record.image_id for record in records[4:]]
    assert rows[3] == {
        "image": records[7].image_id,
        "path": records[7].path,
        "caption": "a red square",
        "cider": "3.0",
    }


def test_the_fit_leaves_a_page_of_some_pictures(tmp_path, fit):
    fit(Gallery(str(tmp_path / "run"), images=2))
    page = Page(tmp_path / "run" / "gallery.html")
    assert len(page.all("img")) == 2
    assert "val-red.png" in page.text and "val-blue.png" in page.text
    assert "images 4 loss" in page.text and "cider 1.250" in page.text


def test_the_check_before_training_writes_nothing(tmp_path, fit):
    class Look(Gallery):
        written = ()

        def on_train_start(self, trainer, pl_module):
            self.written = list(self.folder.glob("*"))

    gallery = Look(str(tmp_path / "run"))
    fit(gallery, epochs=1, num_sanity_val_steps=1)
    assert gallery.written == []


def test_thumbnails_are_small_jpegs_made_once(tmp_path, row):
    Image.new("RGB", (1000, 500), "red").save(row.record.path)
    write_gallery(tmp_path / "gallery.html", "run", {}, [row])
    (source,) = [image["src"] for image in Page(tmp_path / "gallery.html").all("img")]
    with Image.open(tmp_path / source) as image:
        assert (image.format, image.size) == ("JPEG", (320, 160))
    made = (tmp_path / source).stat().st_mtime_ns
    write_gallery(tmp_path / "gallery.html", "run", {}, [row])
    assert (tmp_path / source).stat().st_mtime_ns == made


def test_another_picture_of_the_same_name_has_its_own_thumbnail(tmp_path, row):
    for colour in ("red", "blue"):
        Image.new("RGB", (1000, 500), colour).save(row.record.path)
        write_gallery(tmp_path / "gallery.html", "run", {}, [row])
        (source,) = [image["src"] for image in Page(tmp_path / "gallery.html").all("img")]
        with Image.open(tmp_path / source) as image, Image.new("RGB", (1, 1), colour) as wanted:
            assert image.getpixel((9, 9)) == pytest.approx(wanted.getpixel((0, 0)), abs=9)


def test_a_picture_of_several_rows_is_made_once(tmp_path, row, monkeypatch):
    made = []

    def load(path):
        made.append(path)
        time.sleep(0.02)  # long enough for another thread to begin, too
        return load_image(path)

    monkeypatch.setattr("captioning.web.gallery.load_image", load)
    write_gallery(tmp_path / "gallery.html", "run", {}, [row] * 20)  # threads, one file
    assert made == [row.record.path]
    assert len(Page(tmp_path / "gallery.html").all("img")) == 20


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "$title"])
def test_text_is_harmless(tmp_path, row, evil):
    def write(name, text):
        record = Record(text, row.record.path, (text,), "val")
        generated = Generated(record, text, {text: 1.0})
        write_gallery(tmp_path / name, text, {text: 1.0}, [generated])
        return Page(tmp_path / name)

    plain, page = write("plain.html", "harmless"), write("evil.html", evil)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert page.text.count(evil) == 9  # twice the title, 3 texts, 2 scores, 2 orders


def test_the_page_fetches_nothing(tmp_path, row):
    write_gallery(tmp_path / "gallery.html", "run", {}, [row])
    page = Page(tmp_path / "gallery.html")
    links = [tag.get("src") or tag.get("href") for _, tag in page.tags]
    assert all(link.startswith(("gallery/", "data:")) for link in links if link)
    assert not re.search(r"https?:|url\(|@import", (tmp_path / "gallery.html").read_text())


def test_a_picture_that_is_gone_leaves_a_blank(tmp_path, row):
    gone = row.record._replace(path=str(tmp_path / "gone.jpg"))
    write_gallery(tmp_path / "gallery.html", "run", {}, [row._replace(record=gone)])
    page = Page(tmp_path / "gallery.html")
    assert not page.all("img") and "the picture cannot be read" in page.text


def test_a_missing_score_is_nan_for_the_order_and_empty_in_the_csv(tmp_path, row):
    rows = [row, row._replace(scores={"bert_similarity": 0.75})]
    write_gallery(tmp_path / "gallery.html", "run", {}, rows)
    items = Page(tmp_path / "gallery.html").all("li")
    assert [li["data-scores"] for li in items if li] == ["0.5 nan", "nan 0.75"]
    write_captions(tmp_path / "captions.csv", rows)
    assert (tmp_path / "captions.csv").read_text().splitlines()[2].endswith(",,0.75")


@pytest.mark.parametrize(("count", "chosen"), [(3, [0, 3, 6]), (99, list(range(10))), (0, [])])
def test_spread_is_even_and_in_order(count, chosen):
    assert spread(range(10), count) == chosen
