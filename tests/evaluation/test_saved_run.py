"""Open a run from one path."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from captioning import UserError
from captioning.data.records import Record
from captioning.data.vocabulary import SPECIALS
from captioning.evaluation.saved_run import find_checkpoint, open_run, rank_captions
from captioning.training.validation import Generated


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working folder whose run has the name of its data, and the notebooks' folder beside."""
    root, run_dir = tmp_path / "project", tmp_path / "project" / "runs" / "mine" / "TIME"
    for folder in (root / "mine", root / "notebooks", run_dir / ".hydra"):
        folder.mkdir(parents=True)
    (root / "mine" / "a.jpg").touch()
    (root / "mine" / "captions.csv").write_text("image,caption,split\na.jpg,a dog,train\n")
    (root / "my.pth").touch()
    write_run(run_dir, root)
    monkeypatch.chdir(root / "notebooks")
    return root


def write_run(folder, cwd):
    runtime = {"cwd": str(cwd), "output_dir": str(folder)}
    OmegaConf.save({"hydra": {"runtime": runtime}}, folder / ".hydra" / "hydra.yaml")
    config = {
        "data": {"_target_": "captioning.data.readers.CaptionFolder", "root": "mine"},
        "encoder": {"weights": "my.pth"},
        "model": {},
        "run_dir": str(folder),
    }
    contents = {"format_version": 2, "vocabulary": [*SPECIALS], "encoder": {}, "config": config}
    torch.save({"captioning": contents, "state_dict": {}}, folder / "best.ckpt")


def stay(project):
    return "../runs/mine"


def move_project(project):
    os.chdir(project.rename(project.with_name("elsewhere")) / "notebooks")
    return "../runs/mine"


def link_runs(project):
    (project / "runs").rename(project.parent / "disk")
    (project / "runs").symlink_to(project.parent / "disk")
    return "../runs/mine"


def move_project_and_name_a_link(project):
    move_project(project)
    Path("../runs/latest").symlink_to("mine/TIME")
    return "../runs/latest"


def copy_run(project):
    return shutil.copytree(project / "runs/mine/TIME", project.parent / "a/b/copy")


def copy_checkpoint(project):
    return shutil.copy(project / "runs/mine/TIME/best.ckpt", project.parent)


def forget_start(project):
    (project / "runs/mine/TIME/.hydra/hydra.yaml").write_text("[")
    os.chdir(project)
    return "runs/mine"


@pytest.mark.parametrize(
    "change",
    [
        stay,
        move_project,
        link_runs,
        move_project_and_name_a_link,
        copy_run,
        copy_checkpoint,
        forget_start,
    ],
)
def test_data_and_weights_are_found_where_the_run_found_them(project, change):
    run = open_run(change(project))
    root = Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()
    assert [record.path for record in run.records] == [f"{root}/mine/a.jpg"]
    assert run.config["encoder"]["weights"] == f"{root}/my.pth"


def test_missing_data_are_an_error_with_the_word_that_names_them(project):
    (project / "mine").rename(project / "notebooks" / "moved")
    with pytest.raises(UserError, match=r"project/mine or .*; put them .* open_run\(RUN, data="):
        open_run("../runs/mine")
    assert len(open_run("../runs/mine", data="moved").records) == 1


@pytest.mark.slow
def test_a_trained_run_opens_from_another_folder(trained, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = open_run(folder / "run")
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
    with pytest.raises(UserError, match="no caption has meteor; type a score"):
        rank_captions(rows, "meteor")
