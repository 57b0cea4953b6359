"""The command, as a user runs it, on the run of test_train.py."""

import csv
import json
import re
import shutil

import pytest
from composing import composed
from verbs import run

from captioning import UserError
from captioning.captioner import Captioner
from captioning.data.records import Record
from captioning.evaluate import build_group, check_options, evaluate
from captioning.evaluation.calibration import check_records
from captioning.models.old_names import decoder_sha256


def compose(*overrides):
    return composed(*overrides, config="evaluate")


def run_evaluate(folder, run_dir, *overrides):
    """Run the command; return what it prints, and the folder and content of its results."""
    arguments = [*overrides, f"hydra.run.dir={run_dir}"]
    done = run(folder, *arguments, module="captioning.evaluate")
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / run_dir / "scores.json").read_text())
    return done.stdout, folder / run_dir, scores


@pytest.fixture(scope="module")
def evaluated(trained, folder):
    """An evaluation of best and last, and of both as one."""
    other = folder / "seed=2,name=other"
    other.mkdir()
    shutil.copy(folder / "run" / "last.ckpt", other / "best.ckpt")
    ckpt = "ckpt=[run/best.ckpt,'seed=2,name=other/best.ckpt']"
    options = ["split=dev", "search.width=3", "ensemble=true"]
    return run_evaluate(folder, "evaluated", ckpt, *options)


@pytest.mark.slow
def test_an_evaluation_leaves_scores_captions_galleries_and_a_report(evaluated):
    stdout, results, _ = evaluated
    files = {path.name for path in results.iterdir()}
    assert files >= {"scores.json", "report.html", "captions-run.csv", "gallery-ensemble.html"}
    for text in ("| human | 1 |", "− ensemble |", "run: run/best.ckpt", "report.html"):
        assert text in stdout
    with (results / "captions-run.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    colours = ("red", "green", "blue", "white")
    assert [row["image"] for row in rows] == [f"val-{colour}.png" for colour in colours]
    assert {"caption", "cider", "bert_similarity"} <= set(rows[0])


@pytest.mark.slow
def test_scores_say_where_they_come_from(evaluated, folder):
    _, _, scores = evaluated
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
    captioner = Captioner.from_checkpoint(folder / "run" / "best.ckpt")
    assert weights[0] == decoder_sha256(captioner.decoder)


@pytest.mark.slow
def test_the_scores_are_those_of_training(trained, folder):
    """Where the search is the same: that of the fixture's run is a beam of 5."""
    metrics = json.loads((trained[1] / "run.json").read_text())["metrics"]
    _, _, content = run_evaluate(folder, "same", "ckpt=run/best.ckpt")
    scores = content["rows"][0]["scores"]
    for key in ("bleu1", "rouge_l", "cider", "semantic", "bert_similarity_best_rescaled"):
        assert scores[key] == pytest.approx(metrics[f"val/{key}"], abs=1e-5)


@pytest.mark.slow
def test_an_exported_folder_is_scored_beside_its_checkpoint(trained, folder):
    options = ["format=safetensors", "dtype=int8", "out=int8"]
    done = run(folder, "run/best.ckpt", *options, module="captioning.export")
    assert done.returncode == 0, done.stderr
    options = ["data=folder", "data.root=data", "text_encoder=minilm"]
    _, _, scores = run_evaluate(folder, "quantized", "ckpt=[run/best.ckpt,int8]", *options)
    (pair,) = scores["differences"]
    assert (pair["first"], pair["second"]) == ("run/best", "int8")
    card = ["format=safetensors", "dtype=int8", "out=again", "scores=quantized/scores.json"]
    done = run(folder, "run/best.ckpt", *card, module="captioning.export")
    assert done.returncode == 0, done.stderr
    assert "| run/best − int8 | " in (folder / "again" / "README.md").read_text()


@pytest.mark.slow
def test_neighbours_rerank_by_the_training_images(trained, folder):
    _, _, scores = run_evaluate(folder, "neighbours", "ckpt=run/best.ckpt", "rerank=neighbours")
    assert scores["rerank"]["_target_"].endswith("NeighbourRerank")


@pytest.mark.slow
def test_the_report_holds_all_it_shows(evaluated):
    page = (evaluated[1] / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 7
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', page.replace("xlink:href", "xlink"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["split=test"], "no image is in the test split, only in train, val; type split=val"),
        (["ckpt=nowhere.ckpt"], "ckpt=nowhere.ckpt: there is no such file"),
        (["ensemble=true"], "two checkpoints or more"),
        (["split=train", "rerank=neighbours"], "own captions; type split=dev"),
        (["data.root=nowhere"], "nowhere"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_a_sentence(
    trained, folder, monkeypatch, options, message
):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=re.escape(message)):
        evaluate(compose("ckpt=run/best.ckpt", *options))


@pytest.mark.slow
def test_an_error_is_exit_code_1_without_a_traceback(folder):
    done = run(folder, "split=dev", "hydra.run.dir=failed", module="captioning.evaluate")
    assert done.returncode == 1
    assert done.stderr == "error: ckpt is missing; type ckpt=…\n"
    assert not (folder / "failed").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["device=tpu"], "device=tpu: it is cpu"),
        (["data=folder"], "data.root is missing"),
        (["also=[bleurt]"], "also=[bleurt]: it can be fit, meteor, spice"),
        (["also=[meteor]"], "METEOR needs Java"),
        (["confidence=maybe"], "confidence=maybe: it is true or false"),
    ],
)
def test_an_option_that_cannot_be_is_a_sentence(options, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java
    with pytest.raises(UserError, match=re.escape(message)):
        check_options(compose("ckpt=a.ckpt", *options))


def test_checkpoints_of_different_data_need_a_choice():
    node = {"_target_": "captioning.data.readers.CaptionFolder", "root": "a"}
    configs = [{"data": node}, {"data": node | {"root": "b"}}]
    with pytest.raises(UserError, match="different data; type data=NAME"):
        build_group("data", "data", {"root": None}, configs)
    assert str(build_group("data", "data", {"root": "c"}, configs).root) == "c"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"_target_": "pathlib.Path"}, "not a class of"),
        ("x", "an exported folder has no data"),
    ],
)
def test_a_checkpoint_that_names_no_data_of_ours_is_refused(data, message):
    with pytest.raises(UserError, match=message):
        build_group("data", "data", {}, [{"data": data}])


@pytest.mark.slow
def test_scores_that_are_learnt_are_in_every_file(trained, folder):
    stdout, results, content = run_evaluate(folder, "fit", "ckpt=run/best.ckpt", "also=[fit]")
    keys = {"image_fit", "reference_fit", "fit"}
    for row in content["rows"]:
        assert keys <= {*row["scores"]} and keys <= {*row["intervals"]}
    assert "| image fit | reference fit | fit |" in stdout
    assert keys <= {*(results / "captions.csv").read_text().partition("\n")[0].split(",")}


def test_confidence_needs_many_images_with_several_references(tmp_path, monkeypatch):
    ckpt = tmp_path / "best.ckpt"
    ckpt.touch()
    record = Record("a.jpg", "", ("a dog", "the dog"), "val")
    check_records([record] * 100, "val", str(ckpt))
    for split in ("train", "test"):
        with pytest.raises(UserError, match="fitted to dev; type split=dev"):
            check_records([record] * 100, split, str(ckpt))
    single = record._replace(captions=("a dog",))
    for records in ([record] * 99, [record] * 99 + [single]):
        with pytest.raises(UserError, match="confidence=true needs 100 images of val"):
            check_records(records, "val", str(ckpt))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="which cannot be written to"):
        check_records([record] * 100, "val", str(ckpt))


@pytest.mark.slow
def test_confidence_is_left_beside_the_checkpoint_and_reported(tmp_path):
    scenes = ["data=scenes", "data.images=1000", "data.root=scenes"]
    training = ["encoder=resnet18", "encoder.weights=none", "encoder.image_size=32"]
    training += ["text_encoder=minilm", "trainer.gpus=0", "trainer.max_epochs=1"]
    done = run(tmp_path, *scenes, *training, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    options = ["ckpt=run/best.ckpt", "split=dev", "confidence=true"]
    stdout, results, content = run_evaluate(tmp_path, "scores", *options)
    (report,) = content["confidence"]
    assert report["fitted_to"] + report["measured_on"] == content["pictures"]
    assert 0 <= report["ece"] < 0.3 and len(report["bins"]) == 10
    assert f"calibration error {report['ece']:.3f}" in stdout
    assert "<h2>Confidence</h2>" in (results / "report.html").read_text(encoding="utf-8")
    captioner = Captioner.from_checkpoint(tmp_path / "run" / "best.ckpt")
    with (results / "captions.csv").open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    found = captioner.confidence(tmp_path / row["path"], [row["caption"]])
    assert float(row["confidence"]) == pytest.approx(found[0], abs=1e-3)
