import csv
import json
import os

import pytest

from captioning import UserError
from captioning.output.caption_tables import Sidecars, Table

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


def written(path, rows, **options):
    table = Table(str(path), JOB, **options)
    table.write([(name, f"a {name[:1]} caption") for name in table.todo(rows)])
    table.close()


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return [tuple(json.loads(line).values()) for line in file]
        return [tuple(row.values()) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "metadata.csv"])
def test_rows_of_odd_names_are_written_once_and_found_again(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / name, ODD[:5])
    written(tmp_path / name, ODD)
    written(tmp_path / name, ODD)
    rows = read(tmp_path / name)
    assert len(rows) == len(ODD)
    assert {row[0] for row in rows} >= {*ODD} - {ODD[6]}
    assert all(caption.startswith("a ") for _, caption in rows)


def test_json_lines_keep_a_name_of_any_bytes(tmp_path):
    written(tmp_path / "out.jsonl", [ODD[6]])
    assert os.fsencode(read(tmp_path / "out.jsonl")[0][0]) == b"caf\xe9.jpg"


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_row_torn_anywhere_is_written_again(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / name, ODD)
    whole = (tmp_path / name).read_bytes()
    for length in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:length])
        written(tmp_path / name, ODD)
        assert sorted(read(tmp_path / name)) == sorted(read_bytes(tmp_path, name, whole))


def read_bytes(tmp_path, name, content):
    (tmp_path / f"whole-{name}").write_bytes(content)
    return read(tmp_path / f"whole-{name}")


def test_a_corrected_row_is_not_lost_by_a_quote_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "out.csv", ["1.jpg", "2.jpg", "3.jpg"])
    text = (tmp_path / "out.csv").read_text().replace("a 1 caption", 'a 5" disc')
    (tmp_path / "out.csv").write_text(text)
    written(tmp_path / "out.csv", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    assert (tmp_path / "out.csv").read_text() == f"{text}4.jpg,a 4 caption\n"
    open_quote = text.replace('a 5" disc', '"a disc')
    (tmp_path / "out.csv").write_text(open_quote)
    with pytest.raises(UserError, match="has been changed"):
        written(tmp_path / "out.csv", ["4.jpg"])
    assert (tmp_path / "out.csv").read_text() == open_quote


def test_metadata_names_pictures_from_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "trip" / "metadata.jsonl", ["trip/a.jpg", "trip/x/a.jpg", "else/a.jpg"])
    lines = (tmp_path / "trip" / "metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"file_name": "a.jpg", "text": "a t caption"}
    names = [json.loads(line)["file_name"] for line in lines]
    assert names == ["a.jpg", "x/a.jpg", "else/a.jpg"]


@pytest.mark.parametrize("content", ["", "x\n", "image,caption\na.jpg,mine\n"])
def test_a_table_of_nobodys_is_not_touched(tmp_path, content):
    path = tmp_path / "out.csv"
    path.write_text(content)
    if content:
        with pytest.raises(
            UserError, match="not from this command, or has been changed; type another"
        ):
            Table(str(path), JOB)
        assert path.read_text() == content
    written(path, ["a.jpg"], overwrite=True)
    assert read(path) == [("a.jpg", "a a caption")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.csv", "file,caption\na.jpg,hello\n"),
        ("out.csv", "image,caption\n\xff,x\n"),
        ("out.jsonl", '{"file": "a.jpg"}\n'),
        ("out.jsonl", "a.jpg\n"),
    ],
)
def test_a_table_that_was_changed_is_not_gone_on_with(tmp_path, name, content):
    path = tmp_path / name
    written(path, ["a.jpg"])
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="has been changed"):
        Table(str(path), JOB)
    assert path.read_bytes() == content.encode("latin-1")


@pytest.mark.parametrize(
    ("job", "told"),
    [({**JOB, "search": {"width": 1}}, "another search"), ({**JOB, "decoder": "x"}, "checkpoint")],
)
def test_captions_of_two_jobs_do_not_mix(tmp_path, job, told):
    written(tmp_path / "out.csv", ["a.jpg"])
    with pytest.raises(UserError, match=told):
        Table(str(tmp_path / "out.csv"), job)
    assert len(read(tmp_path / "out.csv")) == 1


def test_a_job_that_made_nothing_does_not_stand_in_the_way(tmp_path):
    Table(str(tmp_path / "out.csv"), {"decoder": "other"}).close()
    written(tmp_path / "out.csv", ["a.jpg"])
    assert len(read(tmp_path / "out.csv")) == 1


def test_only_one_process_writes(tmp_path):
    first = Table(str(tmp_path / "out.csv"), JOB)
    with pytest.raises(UserError, match="another process"):
        Table(str(tmp_path / "out.csv"), JOB)
    first.close()
    Table(str(tmp_path / "out.csv"), JOB).close()


def test_one_that_begins_while_another_ends_is_the_only_one(tmp_path, monkeypatch):
    """The second opens the table when the first has let go of it, but has not quite ended."""
    first, second = Table(str(tmp_path / "out.csv"), JOB), []
    release = first._lock.release

    def let_in(*arguments, **options):
        release(*arguments, **options)
        second.append(Table(str(tmp_path / "out.csv"), JOB))

    monkeypatch.setattr(first._lock, "release", let_in)
    first.close()
    with pytest.raises(UserError, match="another process"):
        Table(str(tmp_path / "out.csv"), JOB)
    second[0].close()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"out=.*cannot be written"):
        Table(str(tmp_path / "file" / "out.csv"), JOB)


def sidecars(tmp_path, *names, overwrite=False):
    output = Sidecars(overwrite)
    todo = output.todo([str(tmp_path / name) for name in names])
    output.write([(path, "a caption") for path in todo])
    return output


def test_a_sidecar_has_the_name_of_its_picture(tmp_path):
    (tmp_path / "sub").mkdir()
    sidecars(tmp_path, "a.b.jpg", "sub/a.b.jpg")
    assert (tmp_path / "a.b.txt").read_text() == "a caption\n"
    assert {path.name for path in (tmp_path / "sub").iterdir()} == {"a.b.txt"}


def test_a_text_that_is_there_stays_unless_told(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    sidecars(tmp_path, "a.jpg", "b.jpg")
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert (tmp_path / "b.txt").exists()
    sidecars(tmp_path, "a.jpg", overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "a caption\n"


def test_two_pictures_do_not_share_a_text(tmp_path):
    output = sidecars(tmp_path, "a.jpg", "a.png")
    assert [message.count("a.png") for message in output.clashes] == [1]
    assert "is that of" in output.clashes[0]
