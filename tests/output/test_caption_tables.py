import csv
import json
import os
from pathlib import Path

import pytest

from captioning import UserError
from captioning.output.caption_tables import CaptionTable, Row, Sidecars

JOB = {"decoder": "abc", "search": {"width": 5}}
ODD = [
    "a b.jpg",
    "it's.jpg",
    'a "b", c.jpg',
    "line\nbreak.jpg",
    "return\r.jpg",
    "é☃.jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    "sub/a b.jpg",
]
CSV = "out.csv"


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, images, **options):
    table = CaptionTable(path, JOB, **options)
    table.write([Row(image, f"a {image[:1]} caption", {}) for image in table.missing(images)])
    table.close()


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        rows = map(json.loads, file) if path.endswith(".jsonl") else csv.DictReader(file)
        return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "metadata.csv"])
def test_rows_of_odd_names_are_written_once(name):
    for images in (ODD[:5], ODD, ODD):
        write(name, images)
    rows = read(name)
    assert len(rows) == len(ODD)
    assert {row[0] for row in rows} >= {*ODD} - {ODD[6]}
    assert all(caption.startswith("a ") for _, caption in rows)


def test_json_lines_keep_a_name_of_any_bytes():
    write("out.jsonl", [ODD[6]])
    assert os.fsencode(read("out.jsonl")[0][0]) == b"caf\xe9.jpg"


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_row_torn_anywhere_is_written_again(name):
    write(name, ODD)
    whole, rows = Path(name).read_bytes(), sorted(read(name))
    for length in range(len(whole)):
        Path(name).write_bytes(whole[:length])
        write(name, ODD)
        assert sorted(read(name)) == rows


def test_a_corrected_row_is_not_lost_by_a_quote_in_it():
    table = Path(CSV)
    write(CSV, ["1.jpg", "2.jpg", "3.jpg"])
    text = table.read_text().replace("a 1 caption", 'a 5" disc')
    table.write_text(text)
    write(CSV, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    assert table.read_text() == f"{text}4.jpg,a 4 caption\n"
    open_quote = text.replace('a 5" disc', '"a disc')
    table.write_text(open_quote)
    with pytest.raises(UserError, match="has been changed"):
        write(CSV, ["4.jpg"])
    assert table.read_text() == open_quote


def test_metadata_names_images_from_its_own_folder():
    path = "trip/metadata.jsonl"
    write(path, ["trip/a.jpg", "trip/x/a.jpg", "else/a.jpg"])
    assert Path(path).read_text().startswith('{"file_name": "a.jpg", "text": "a t caption"}\n')
    assert [name for name, _ in read(path)] == ["a.jpg", "x/a.jpg", "else/a.jpg"]


def test_a_table_from_elsewhere_takes_overwrite():
    content = "image,caption\na.jpg,mine\n"
    Path(CSV).write_text(content)
    with pytest.raises(UserError, match="not from this command, or has been changed; type another"):
        CaptionTable(CSV, JOB)
    assert Path(CSV).read_text() == content
    write(CSV, ["a.jpg"], overwrite=True)
    assert read(CSV) == [("a.jpg", "a a caption")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.csv", b"file,caption\na.jpg,hello\n"),
        ("out.csv", b"image,caption\n\xff,x\n"),
        ("out.jsonl", b'{"file": "a.jpg"}\n'),
        ("out.jsonl", b"a.jpg\n"),
    ],
)
def test_a_table_that_was_changed_is_not_gone_on_with(name, content):
    write(name, ["a.jpg"])
    Path(name).write_bytes(content)
    with pytest.raises(UserError, match="has been changed"):
        CaptionTable(name, JOB)
    assert Path(name).read_bytes() == content


@pytest.mark.parametrize(
    ("changed", "error"),
    [({"search": {"width": 1}}, "another search"), ({"decoder": "x"}, "another checkpoint")],
)
def test_captions_of_two_jobs_do_not_mix(changed, error):
    write(CSV, ["a.jpg"])
    with pytest.raises(UserError, match=error):
        CaptionTable(CSV, JOB | changed)
    assert len(read(CSV)) == 1


def test_an_empty_file_and_a_job_without_captions_are_no_obstacle():
    Path(CSV).touch()
    CaptionTable(CSV, {"decoder": "other"}).close()
    write(CSV, ["a.jpg"])
    assert len(read(CSV)) == 1


def test_only_one_process_writes(monkeypatch):
    """Also where the second opens the table when the first has unlocked it, but has not ended."""
    first, second = CaptionTable(CSV, JOB), []
    with pytest.raises(UserError, match="another process"):
        CaptionTable(CSV, JOB)
    release = first._lock.release

    def release_and_open(*arguments, **options):
        release(*arguments, **options)
        second.append(CaptionTable(CSV, JOB))

    monkeypatch.setattr(first._lock, "release", release_and_open)
    first.close()
    with pytest.raises(UserError, match="another process"):
        CaptionTable(CSV, JOB)
    second[0].close()


def write_sidecars(*images, overwrite=False):
    output = Sidecars(overwrite)
    output.write([Row(image, "a caption", {}) for image in output.missing(images)])
    return output


def test_a_text_stays_unless_overwritten():
    Path("sub").mkdir()
    Path("a.txt").write_text("mine")
    write_sidecars("a.jpg", "sub/a.b.jpg")
    assert Path("a.txt").read_text() == "mine"
    assert os.listdir("sub") == ["a.b.txt"]
    write_sidecars("a.jpg", overwrite=True)
    assert Path("a.txt").read_text() == "a caption\n"


def test_the_longest_name_gets_its_text():
    name = "x" * 251
    write_sidecars(f"{name}.jpg")
    assert os.listdir() == [f"{name}.txt"]


def test_two_images_do_not_share_a_text():
    (message,) = write_sidecars("a.jpg", "a.png").clashes
    assert message == "a.png has no caption: a.txt is that of a.jpg"
