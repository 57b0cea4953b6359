"""Many pictures become a table and a CSV."""

import base64
import csv
import io
import re

from PIL import Image

from captioning.web.caption_table import CHUNK, table


def rows(html):
    data = re.search(r'href="data:text/csv;base64,([^"]+)"', html)[1]
    return list(csv.reader(io.StringIO(base64.b64decode(data).decode())))


def test_many_pictures_become_a_csv_of_their_captions(tmp_path, captioners):
    paths = []
    for at in range(CHUNK + 3):
        paths.append(tmp_path / f"{at:02}, ü.png")
        Image.new("RGB", (20, 20), (at, 90, 200 - 9 * at)).save(paths[-1])
    paths[2].write_text("a letter")
    parts = list(table(list(map(str, paths)), captioners))
    assert len(parts) == 2
    assert "data:text/csv" not in parts[0]
    assert "02, ü.png cannot be read as an image" in parts[1]
    del paths[2]
    said = [one.captions(paths) for one in captioners.values()]
    expected = [list(row) for row in zip((path.name for path in paths), *said, strict=True)]
    assert rows(parts[1]) == [["image", "attention", "lstm"], *expected]


def test_one_captioners_column_is_called_caption(tmp_path, captioners):
    path = tmp_path / "one.png"
    Image.new("RGB", (20, 20)).save(path)
    [html] = table([str(path)], {"lstm": captioners["lstm"]})
    assert rows(html) == [["image", "caption"], ["one.png", captioners["lstm"](path)]]


def test_where_nothing_can_be_read_there_is_nothing_to_save(tmp_path, captioners):
    [html] = table([str(tmp_path / "gone.png")], captioners)
    assert "gone.png cannot be read" in html
    assert "text/csv" not in html
