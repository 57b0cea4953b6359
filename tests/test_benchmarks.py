"""That the benchmarks run; how fast anything is, no test says."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, learning_curve, losses, made_up_errors, speedrun
from captioning.data.readers import CaptionFolder
from captioning.data.scenes import Scenes

ROOT = Path(__file__).parents[1]


def run_module(module, *options):
    command = [sys.executable, "-m", module, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_every_row_is_measured(tmp_path):
    done = run_module("benchmarks", "smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"bench.json", "table.md", "plot.png"}
    rows = {row["name"]: row for row in json.loads((folder / "bench.json").read_text())["rows"]}
    assert {"train lstm 256", "encode resnet50", "beam 5", "start to first step"} <= set(rows)
    assert all(row["ours"][0] > 0 and row["ordinary"][0] > 0 for row in rows.values())
    assert rows["train lstm 256"]["of_limit"] > 0
    for name, row in rows.items():
        assert f"| {name} ({row['unit']}) |" in done.stdout


@pytest.mark.slow
def test_a_million_may_be_a_hundred(tmp_path):
    options = ["--images", "100", "--processes", "1", "--folder", str(tmp_path)]
    done = run_module("benchmarks.million", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["features, bytes"] > 100 * 2 * 1280
    (manifest,) = tmp_path.glob("*/manifest.json")
    assert json.loads(manifest.read_text())["unreadable"] == {}


def test_a_row_that_is_not_there_is_named():
    done = run_module("benchmarks", "--only", "lstn")
    assert done.returncode == 2
    assert "the names are merge, lstm" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(tmp_path):
    done = run_module("benchmarks.gpu", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert done.stderr == "torch finds no GPU here: nothing was measured\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "row"),
    [
        (["benchmarks", "--table", "docs/results/bench.json"], "train lstm 256"),
        (["benchmarks", "--table", "docs/results/captions.json"], "first caption"),
        (["benchmarks.gpu", "--table", "docs/results/gpu.json"], "train lstm, float32"),
        (["benchmarks.learning_curve", "--table"], "| 3,000 |"),
        (["benchmarks.made_up_errors", "--table"], "| `image_fit` |"),
    ],
)
def test_the_page_of_results_shows_the_table_of_each_file(command, row):
    done = run_module(*command)
    assert done.returncode == 0 and row in done.stdout
    assert done.stdout.strip() in (ROOT / "docs" / "results.md").read_text()


def tiny_curve(monkeypatch, tmp_path):
    """Let the learning curve go to `tmp_path`: four training images, two of them one's own."""
    monkeypatch.chdir(tmp_path)
    settings = {"max_epochs": 1, "learning_rate": 1e-3, "min_count": 1}
    keys = ("from nothing", 3), ("with a head start", 2), ("from nothing", 2)
    monkeypatch.setattr(learning_curve, "SOURCE", keys[0])
    monkeypatch.setattr(learning_curve, "SETTINGS", dict.fromkeys(keys, settings))
    monkeypatch.setattr(learning_curve, "SEEDS", (0,))
    for name in ("FILE", "PLOT"):
        monkeypatch.setattr(learning_curve, name, tmp_path / f"{name}.png")


def test_a_head_start_comes_from_other_images(folder, monkeypatch, tmp_path):
    tiny_curve(monkeypatch, tmp_path)
    learning_curve.write_folders(folder / "data", 0)
    all_names, own = [], []
    for name in ("half", "2-images"):
        records = CaptionFolder(f"outputs/learning_curve/seed-0/{name}", layout="csv").records()
        all_names.append({record.image_id for record in records})
        own.append({record.image_id for record in records if record.split == "train"})
        val = {record.image_id for record in records if record.split == "val"}
        assert val == {f"val-{colour}.png" for colour in ("red", "green", "blue", "white")}
    assert all_names[0] == all_names[1]  # so they share their features
    assert len(own[0]) == len(own[1]) == 2 and not own[0] & own[1]


@pytest.mark.slow
def test_a_learning_curve_is_drawn_and_no_run_is_run_again(folder, monkeypatch, tmp_path, capsys):
    tiny_curve(monkeypatch, tmp_path)
    monkeypatch.setattr(sys, "argv", ["learning_curve", str(folder / "data")])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    learning_curve.main()
    rows = json.loads(learning_curve.FILE.read_text())["rows"]
    assert [row["images"] for row in rows] == [0, 2, 2, 3, 6000]
    assert all(0 <= row["mean"] < 1 for row in rows)
    assert learning_curve.PLOT.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(sys, "executable", "no Python")
    learning_curve.main()
    assert json.loads(learning_curve.FILE.read_text())["rows"] == rows


def test_losses_are_compared_with_those_that_were_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(losses, "FILE", tmp_path / "losses.json")
    monkeypatch.setattr(losses, "measure", lambda: {"merge": [{"train/loss": "2.0"}]})
    assert losses.main(["write"]) == losses.main([]) == 0
    assert "merge: 1 numbers equal to the last digit" in capsys.readouterr().out
    monkeypatch.setattr(losses, "measure", lambda: {"merge": [{"train/loss": "2.01"}]})
    assert losses.main([]) == 1
    assert "differ by 5.0e-03 at most" in capsys.readouterr().out


TINY_ON_A_CPU = """
import json, pathlib, sys, torch
from benchmarks import gpu, gpu_rows

folder = pathlib.Path(sys.argv[1])
sizes = {"repeats": 1, "images": 12, "plain_batches": {"lstm": 1, "attention": 1}}
sizes |= {"drawn": 4, "pictures": 8, "steps": 2, "searched": 4}
sizes |= {"product": 64}
bench = gpu_rows.Bench(folder, torch.device("cpu"), **sizes)
content = {"rows": [], "errors": []}
write = lambda: (folder / "gpu.json").write_text(json.dumps(content))
gpu.measure(list(gpu_rows.ROWS), content, bench, write)
assert not torch.are_deterministic_algorithms_enabled()
data = gpu_rows.data_module(bench, "lstm", False)
captions = bench.once(gpu_rows.flickr8k, "lstm")[1]
texts = [text for record in data.splits["train"] for text in record.captions]
assert [data.vocabulary.encode(text) for text in texts] == captions
"""


@pytest.mark.slow
def test_every_row_of_the_gpu_is_measured_on_a_cpu_too(tmp_path):
    command = [sys.executable, "-c", TINY_ON_A_CPU, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert not content["errors"], done.stderr
    rows = {row["name"]: row for row in content["rows"]}
    assert len(rows) == 9
    assert {"train lstm, float32", "train attention, bf16-mixed", "beam 5"} < set(rows)
    for row in rows.values():
        assert min([*row["ours"], *row["ordinary"], row["ratio"], *row["notes"].values()]) > 0


def test_the_counts_are_those_of_pytest(monkeypatch, capfd):
    script = "print('..s'); print('2 passed, 1 skipped, 3 errors in 61.20s (0:01:01)'); exit(1)"
    popen = subprocess.Popen
    command = [sys.executable, "-c", script]
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda _, **options: popen(command, **options))
    assert gpu.run_tests() == (False, {"passed": 2, "failed": 3, "skipped": 1})
    assert "1 skipped" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("scores", "counts"), [([60.4, 60.6, 60.5, 60.7, 60.3], True), ([61, 59, 62, 60, 60.5], False)]
)
def test_a_speed_run_is_a_record_if_it_is_sure(monkeypatch, tmp_path, capsys, scores, counts):
    runs = {"commit": "c0ffee", "dirty": False, "seconds": 250.0}
    monkeypatch.setattr(speedrun, "FILE", tmp_path / "speedrun.json")
    monkeypatch.setattr(
        speedrun, "run_seed", lambda data, seed: runs | {"seed": seed, "cider": scores[seed]}
    )
    assert speedrun.main(["FOLDER", "changed=nothing"]) == int(not counts)
    assert speedrun.FILE.exists() is counts
    assert f"| {sum(scores) / 5:.1f} ± " in capsys.readouterr().out
    assert speedrun.main(["table"]) == 0
    assert ("nothing |" in capsys.readouterr().out) is counts


def test_the_page_of_the_speed_run_shows_its_records():
    done = run_module("benchmarks.speedrun", "table")
    assert done.stdout.strip() in (ROOT / "docs" / "speedrun.md").read_text()


def test_each_kind_of_error_is_made_and_seen():
    caption = "a black dog runs on the beach with two girls holding a ball"
    frequency = Counter(dict.fromkeys(made_up_errors.WORDS, 1))
    references = [caption, "a brown dog is running in the sand"]
    made = made_up_errors.make_errors(caption, references, frequency, random.Random(0))
    assert set(made) == {*made_up_errors.KINDS}
    present = {word for text in references for word in text.split()}
    for kind, text in made.items():
        pairs = zip(caption.split(), text.split(), strict=True)
        ((old, new),) = [pair for pair in pairs if pair[0] != pair[1]]
        assert new not in present
        assert made_up_errors.WORDS[new] == made_up_errors.WORDS[old]
        assert made_up_errors.WORDS[new][0] == kind
    assert made_up_errors.make_errors("nothing here", ["x"], frequency, random.Random(0)) == {}


@pytest.mark.slow
def test_errors_are_counted_on_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = Scenes("scenes", images=60)
    scenes.prepare()
    table = made_up_errors.measure(str(scenes.folder))
    assert list(table) == [*made_up_errors.KEYS]
    for shares in table.values():
        assert shares["another image"] > 0.6
        assert all(0 <= share <= 1 for kind, share in shares.items() if kind != "tau")
