"""Open a run from one path."""

import os
import shutil

import pytest

from captioning import UserError
from captioning.data.records import Record
from captioning.evaluation.saved_run import find_checkpoint, open_run, rank_captions
from captioning.training.validation import Generated


@pytest.mark.slow
@pytest.mark.parametrize("path", ["run", "run/best.ckpt"])
def test_a_run_opens_from_another_folder(trained, folder, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    run = open_run(folder / path)
    assert run.checkpoint == folder / "run" / "best.ckpt"
    assert [record.image_id for record in run.split("val")][:2] == ["val-red.png", "val-green.png"]
    assert "square" in run.vocabulary.words
    generated = run.generated()
    assert len(generated) == 4
    assert generated[0].record == run.split("val")[0]
    assert set(generated[0].scores) > {"cider", "bert_similarity"}


@pytest.mark.slow
def test_captions_of_missing_images_are_an_error(trained, folder, tmp_path):
    for name in ("best.ckpt", "captions.csv"):
        shutil.copy(folder / "run" / name, tmp_path / name)
    captions = tmp_path / "captions.csv"
    captions.write_text(captions.read_text().replace("val-red.png,", "other.png,"))
    os.symlink(folder / "data", tmp_path / "data")
    run = open_run(tmp_path)
    with pytest.raises(UserError, match=r"names other.png, which is not in .*data any more"):
        run.generated()
    captions.unlink()
    with pytest.raises(UserError, match=r"there is no .*captions\.csv"):
        run.generated()


def test_the_newest_run_is_opened(tmp_path):
    with pytest.raises(UserError, match="type make demo"):
        find_checkpoint(tmp_path)
    for age, name in enumerate(("new", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.ckpt").touch()
        os.utime(tmp_path / name / "best.ckpt", (1000 - age, 1000 - age))
    assert find_checkpoint(tmp_path) == tmp_path / "new" / "best.ckpt"


def test_captions_are_ranked_from_the_lowest_score_and_ties_by_the_next():
    record = Record("a.jpg", "a.jpg", ("a",), "val")
    scores = [{"cider": 1.0, "b": 0.0}, {"cider": 0.0, "b": 2.0}, {"cider": 0.0, "b": 1.0}, {}]
    rows = [Generated(record, str(number), of_row) for number, of_row in enumerate(scores)]
    assert [row.caption for row in rank_captions(rows, "cider", "b")] == ["2", "1", "0"]
