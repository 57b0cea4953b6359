"""The verb, as a user runs it, on the run of test_train.py."""

import csv
import json
import re
import shutil

import pytest
from composing import composed
from verbs import run

from captioning import UserError
from captioning.captioner import Captioner
from captioning.evaluate import checked, chosen, evaluate
from captioning.features.weights import weights_sha256


def config(*overrides):
    return composed(*overrides, config="evaluate")


@pytest.fixture(scope="module")
def evaluated(trained, folder):
    """The folder of an evaluation of best and last, and of both as one."""
    other = folder / "seed=2,name=other"
    other.mkdir()
    shutil.copy(folder / "run" / "last.ckpt", other / "best.ckpt")
    done = run(
        folder,
        "ckpt=[run/best.ckpt,'seed=2,name=other/best.ckpt']",
        "split=dev",
        "search.width=3",
        "ensemble=true",
        "hydra.run.dir=evaluated",
        module="captioning.evaluate",
    )
    assert done.returncode == 0, done.stderr
    return done, folder / "evaluated"


@pytest.mark.slow
def test_an_evaluation_leaves_scores_captions_galleries_and_a_report(evaluated):
    done, results = evaluated
    files = {path.name for path in results.iterdir()}
    assert files >= {"scores.json", "report.html", "captions-run.csv", "gallery-ensemble.html"}
    for told in ("| people | 1 |", "− ensemble |", "run: run/best.ckpt", "report.html"):
        assert told in done.stdout


@pytest.mark.slow
def test_scores_say_where_they_come_from(evaluated):
    scores = json.loads((evaluated[1] / "scores.json").read_text())
    assert scores["split"] == "val"
    assert scores["search"]["width"] == 3
    assert "captioning.evaluate" in scores["command"]
    assert {"commit", "hardware", "started", "seconds"} <= set(scores)
    checkpoint = scores["systems"][0]["checkpoints"][0]
    assert checkpoint["path"] == "run/best.ckpt"
    assert checkpoint["encoder"]["name"] == "resnet18"
    assert re.fullmatch("[0-9a-f]{64}", checkpoint["vocabulary_sha256"])
    weights = [system["checkpoints"][0]["decoder"] for system in scores["systems"][:2]]
    assert len(set(weights)) == 2  # of the best and of the last epoch
    own = Captioner.from_checkpoint(evaluated[1].parent / "run" / "best.ckpt")
    assert weights[0] == weights_sha256(own.decoder)


@pytest.mark.slow
def test_the_scores_are_those_of_training(evaluated, trained):
    """Where the search is the same: that of the fixture's run is a beam of 5."""
    summary = json.loads((trained[1] / "run.json").read_text())["metrics"]
    done = run(
        evaluated[1].parent,
        "ckpt=run/best.ckpt",
        "hydra.run.dir=same",
        module="captioning.evaluate",
    )
    assert done.returncode == 0, done.stderr
    row = json.loads((evaluated[1].parent / "same" / "scores.json").read_text())["rows"][0]
    for key in ("bleu1", "rouge_l", "cider", "semantic", "bert_similarity_best_rescaled"):
        assert row["scores"][key] == pytest.approx(summary[f"val/{key}"], abs=1e-5)


@pytest.mark.slow
def test_neighbours_choose_among_the_training_pictures(trained, folder):
    done = run(
        folder,
        "ckpt=run/best.ckpt",
        "rerank=neighbours",
        "search.width=7",
        "hydra.run.dir=neighbours",
        module="captioning.evaluate",
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / "neighbours" / "scores.json").read_text())
    assert scores["search"]["width"] == 7


@pytest.mark.slow
def test_every_caption_is_in_the_table(evaluated):
    with (evaluated[1] / "captions-run.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [
        f"val-{colour}.png" for colour in ("red", "green", "blue", "white")
    ]
    assert {"caption", "cider", "bert_similarity"} <= set(rows[0])


@pytest.mark.slow
def test_the_report_holds_all_it_shows(evaluated):
    page = (evaluated[1] / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 7
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', page.replace("xlink:href", "xlink"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["split=test"], "no picture is in the test split, only in train, val; type split=val"),
        (["ckpt=nowhere.ckpt"], "ckpt=nowhere.ckpt: there is no such file"),
        (["ensemble=true"], "two checkpoints or more"),
        (["split=train", "rerank=neighbours"], "own captions; type split=dev"),
        (["data.root=nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_a_sentence(trained, folder, monkeypatch, options, told):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=re.escape(told)):
        evaluate(config("ckpt=run/best.ckpt", *options))


@pytest.mark.slow
def test_an_error_is_exit_code_1_without_a_traceback(folder):
    done = run(folder, "split=dev", "hydra.run.dir=failed", module="captioning.evaluate")
    assert done.returncode == 1
    assert done.stderr == ("error: ckpt= is missing; see python -m captioning.evaluate --help\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["split=valid"], "train, val (or dev) or test"),
        (["device=tpu"], "device=tpu: it is cpu"),
        (["data=folder"], "data.root= is missing"),
        (["also=[bleurt]"], "also=[bleurt]: it can be meteor or spice"),
    ],
)
def test_a_config_that_cannot_be_is_a_sentence(options, told):
    with pytest.raises(UserError, match=re.escape(told)):
        checked(config("ckpt=a.ckpt", *options))


def test_a_score_that_needs_java_says_so_before_it_is_due(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="METEOR needs Java"):
        checked(config("ckpt=a.ckpt", "also=[meteor]"))


def test_dev_is_val():
    assert checked(config("ckpt=a.ckpt", "split=dev"))["split"] == "val"


def test_checkpoints_of_different_data_need_a_choice():
    node = {"_target_": "captioning.data.readers.CaptionFolder", "root": "a"}
    configs = [{"data": node}, {"data": node | {"root": "b"}}]
    with pytest.raises(UserError, match=r"different data; .* data=NAME"):
        chosen("data", "data", {"root": None}, configs)
    assert str(chosen("data", "data", {"root": "c"}, configs).root) == "c"


def test_a_checkpoint_cannot_name_what_is_made():
    configs = [{"data": {"_target_": "pathlib.Path"}}]
    with pytest.raises(UserError, match="not a class of"):
        chosen("data", "data", {}, configs)


@pytest.mark.parametrize("config", [{}, {"data": "x"}])
def test_a_checkpoint_without_data_needs_a_choice(config):
    with pytest.raises(UserError, match="has no data; type data=NAME"):
        chosen("data", "data", {}, [config])
