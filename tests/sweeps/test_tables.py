import csv
import json
from pathlib import Path

import pytest
from sweeps_writing import write_run

from captioning.sweeps.runs import differing, read_runs
from captioning.sweeps.summary import write_summary
from captioning.sweeps.tables import make_rows, markdown
from captioning.web.sweep_page import write_sweep_page


def test_what_differs_is_a_column_and_what_does_not_is_none(sweep):
    rows = make_rows(read_runs([sweep]))
    assert [row["settings"] for row in rows] == [
        {"model": "lstm", "model.hidden_dim": 64},
        {"model": "lstm", "model.hidden_dim": 16},
        {"model": "merge", "model.hidden_dim": 64},
        {"model": "merge", "model.hidden_dim": 16},
    ]
    assert rows[0]["seeds"] == [1, 2]
    assert rows[0]["scores"]["cider"]["mean"] == pytest.approx(0.379)
    assert "name=grid" not in rows[0]["config"]


def test_a_setting_that_was_not_typed_is_the_configs(tmp_path):
    config = {"model": {"hidden_dim": 256}}
    write_run(tmp_path / "a", [], 1, 0.5, config=config)
    write_run(tmp_path / "b", ["model.hidden_dim=512"], 1, 0.6, config=config)
    write_run(tmp_path / "c", ["++model.tied=true"], 1, 0.7, config=config)
    runs = read_runs([tmp_path])
    assert differing(runs) == ["model.hidden_dim", "model.tied"]
    assert [run.setting("model.hidden_dim") for run in runs] == [256, 512, 256]
    assert [run.setting("model.tied") for run in runs] == [None, None, "true"]


def test_the_smallest_is_first_where_that_is_best(tmp_path):
    for at in (3, 1, 2):
        metrics = {"val/loss": float(at), "val/cider": float(at)}
        content = {"monitor": "val/loss", "mode": "min", "metrics": metrics}
        write_run(tmp_path / str(at), [f"x={at}"], 1, 0.0, **content)
    assert [row["settings"]["x"] for row in make_rows(read_runs([tmp_path]))] == [1, 2, 3]
    assert "| x | seeds | loss | cider |" in markdown(make_rows(read_runs([tmp_path])))


def test_a_mode_that_contradicts_what_was_monitored_is_not_believed(tmp_path):
    """As `monitor=val/loss` alone once left it in run.json."""
    for at in (3, 1, 2):
        content = {"monitor": "val/loss", "mode": "max", "metrics": {"val/loss": float(at)}}
        write_run(tmp_path / str(at), [f"x={at}"], 1, 0.0, **content)
    assert [row["settings"]["x"] for row in make_rows(read_runs([tmp_path]))] == [1, 2, 3]
    write_summary(tmp_path)
    write_sweep_page(tmp_path)
    assert "by loss, the smallest first" in " ".join(
        (tmp_path / "summary.html").read_text().split()
    )


def test_a_score_that_was_added_is_a_column_and_orders_rows(tmp_path, added):
    for at in (3, 1, 2):
        metrics = {"val/letters": float(at), "val/cider": float(at)}
        content = {"monitor": "val/letters", "mode": "max", "metrics": metrics}
        write_run(tmp_path / str(at), [f"x={at}"], 1, 0.0, **content)
    table = write_summary(tmp_path).splitlines()
    assert table[0] == "| x | seeds | letters | cider | s/epoch |"
    assert table[2].startswith("| 1 | 1 | 1.000 | 100.0 |")
    assert "<th>letters</th>" in (tmp_path / "summary.html").read_text()


def test_what_no_release_of_today_monitors_is_ordered_by_cider(tmp_path):
    for at in (1, 3, 2):
        metrics = {"val/clip": -float(at), "val/cider": float(at)}
        write_run(tmp_path / str(at), [f"x={at}"], 1, 0.0, monitor="val/clip", metrics=metrics)
    assert [row["settings"]["x"] for row in make_rows(read_runs([tmp_path]))] == [3, 2, 1]


def test_where_many_settings_differ_a_row_is_named_by_what_was_typed_for_it(tmp_path):
    for at, key in enumerate("uvwxy"):
        write_run(tmp_path / key, ["trainer.gpus=0", f"{key}=1"], 1, 0.9 - at / 10)
    lines = markdown(make_rows(read_runs([tmp_path]))).splitlines()
    assert lines[0].startswith("| config | seeds | cider |")
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| `{key}=1`" for key in "uvwxy"]


def test_a_jobs_status_outdoes_what_the_training_said(tmp_path):
    """The fit ended, then the captioning of the best checkpoint failed."""
    write_run(tmp_path / "a", [], 1, 0.5)
    (tmp_path / "a" / "status.json").write_text(json.dumps({"status": "failed", "error": "e"}))
    assert make_rows(read_runs([tmp_path])) == []


def test_a_summary_is_a_csv_and_a_table_with_what_is_missing(sweep):
    table = write_summary(sweep)
    assert table.splitlines()[2].startswith("| lstm | 64 | 2 | 37.9 ± 0.7 |")
    text = (sweep / "summary.md").read_text()
    assert text.startswith(table)
    assert "\n- model=lstm,model.hidden_dim=-1,seed=1: failed, no <size>\n" in text
    with open(sweep / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["model.hidden_dim"] == "64"
    assert float(rows[0]["cider"]) == pytest.approx(0.379)
    assert float(rows[0]["cider_spread"]) == pytest.approx(0.00707, abs=1e-5)


def test_a_summary_before_the_first_result_says_so(tmp_path):
    assert write_summary(tmp_path) == "No job has finished yet."
    assert "No job has finished yet" in (tmp_path / "summary.html").read_text()


def test_rows_of_an_older_release_are_still_tabled():
    path = Path(__file__).parents[2] / "docs" / "results" / "lstm_lite0.json"
    table = markdown(json.loads(path.read_text()))
    assert "| `encoder=efficientnet_lite0 text_encoder=minilm trainer.gpus=0` | 3 | 47.4" in table


def test_one_config_is_one_row_however_it_was_typed_and_a_seed_counts_once(tmp_path):
    config = {"model": {"hidden_dim": 256}, "seed": 1, "name": "a", "run_dir": "${hydra:x}"}
    write_run(tmp_path / "a1", ["model=lstm"], 1, 0.40, config=config)
    write_run(tmp_path / "a2", ["model=lstm"], 2, 0.44, config=config | {"seed": 2})
    write_run(tmp_path / "b1", ["model.hidden_dim=256"], 1, 0.40, config=config | {"name": "b"})
    wider = config | {"model": {"hidden_dim": 512}}
    write_run(tmp_path / "c1", ["model.hidden_dim=512"], 1, 0.3, config=wider)
    rows = make_rows(read_runs([tmp_path]))
    assert [row["seeds"] for row in rows] == [[1, 2], [1]]
    assert rows[0]["scores"]["cider"]["mean"] == pytest.approx(0.42)
