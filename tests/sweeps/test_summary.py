"""Rows and tables of runs, by the functions and by `captioning.summarize`."""

import csv
import json
from pathlib import Path

import pytest
from sweeps_writing import write_run

from captioning.summarize import main
from captioning.sweeps.runs import differing_keys, read_runs
from captioning.sweeps.summary import format_rows, make_rows, write_summary
from captioning.web.sweep_page import write_sweep_page


def write_trio(folder, key="val/loss", **content):
    """Write runs of x=1, 2 and 3 that score x; return the xs of their rows."""
    for x in (3, 1, 2):
        metrics = {key: float(x), "val/cider": float(x)}
        write_run(folder / str(x), [f"x={x}"], 1, 0.0, **{"metrics": metrics, **content})
    return [row["settings"]["x"] for row in make_rows(read_runs([folder]))]


def test_seeds_are_folded_into_rows_and_settings_that_differ_are_columns(sweep):
    rows = make_rows(read_runs([sweep]))
    settings = [(row["settings"]["model"], row["settings"]["model.hidden_dim"]) for row in rows]
    assert settings == [("lstm", 64), ("lstm", 16), ("merge", 64), ("merge", 16)]
    assert "name=grid" not in rows[0]["config"]
    assert rows[0]["seeds"] == [1, 2]
    assert rows[0]["scores"]["cider"]["mean"] == pytest.approx(0.379)
    assert rows[0]["scores"]["cider"]["spread"] == pytest.approx(0.00707, abs=1e-5)
    assert rows[0]["seconds_per_epoch"] == 15


def test_a_setting_that_was_not_typed_is_the_configs(tmp_path):
    config = {"model": {"hidden_dim": 256}}
    write_run(tmp_path / "a", [], 1, 0.5, config=config)
    write_run(tmp_path / "b", ["model.hidden_dim=512"], 1, 0.6, config=config)
    write_run(tmp_path / "c", ["++model.tied=true"], 1, 0.7, config=config)
    runs = read_runs([tmp_path])
    assert differing_keys(runs) == ["model.hidden_dim", "model.tied"]
    assert [run.setting("model.hidden_dim") for run in runs] == [256, 512, 256]
    assert [run.setting("model.tied") for run in runs] == [None, None, "true"]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_smallest_loss_is_first_whatever_mode_was_recorded(tmp_path, mode):
    """`monitor=val/loss` alone once left mode=max in run.json."""
    assert write_trio(tmp_path, monitor="val/loss", mode=mode) == [1, 2, 3]
    assert write_summary(tmp_path).startswith("| x | seeds | loss | cider |")
    write_sweep_page(tmp_path)
    words = (tmp_path / "summary.html").read_text().split()
    assert "by loss, the smallest first" in " ".join(words)


def test_an_added_score_is_a_column_and_orders_rows(tmp_path, added):
    assert write_trio(tmp_path, key="val/letters", monitor="val/letters") == [1, 2, 3]
    table = write_summary(tmp_path).splitlines()
    assert table[0] == "| x | seeds | letters | cider | s/epoch |"
    assert table[2].startswith("| 1 | 1 | 1.000 | 100.0 |")


def test_a_monitored_score_of_another_release_is_replaced_by_cider(tmp_path):
    assert write_trio(tmp_path, key="val/clip", monitor="val/clip") == [3, 2, 1]


def test_where_many_settings_differ_a_row_is_named_by_what_was_typed_for_it(tmp_path):
    for at, key in enumerate("uvwxy"):
        write_run(tmp_path / key, ["trainer.gpus=0", f"{key}=1"], 1, 0.9 - at / 10)
    lines = format_rows(make_rows(read_runs([tmp_path]))).splitlines()
    assert lines[0].startswith("| config | seeds | cider |")
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| `{key}=1`" for key in "uvwxy"]


def test_a_jobs_status_outweighs_that_of_its_training(tmp_path):
    """The fit ended, then the captioning of the best checkpoint failed."""
    write_run(tmp_path / "a", [], 1, 0.5)
    (tmp_path / "a" / "status.json").write_text(json.dumps({"status": "failed", "error": "e"}))
    assert make_rows(read_runs([tmp_path])) == []


def test_before_the_first_result_there_is_a_sentence(tmp_path):
    assert write_summary(tmp_path) == "No job has finished yet."
    assert (tmp_path / "summary.csv").read_text().startswith("seeds,epochs,")
    write_sweep_page(tmp_path)
    assert "No job has finished yet" in (tmp_path / "summary.html").read_text()


def test_rows_of_an_older_release_are_still_tabled():
    path = Path(__file__).parents[2] / "docs" / "results" / "lstm_lite0.json"
    table = format_rows(json.loads(path.read_text()))
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


def test_the_command_prints_and_writes_the_table_and_the_missing_runs(sweep, capsys):
    assert main([str(sweep), f"out={sweep / 'rows.json'}"]) == 0
    printed = capsys.readouterr()
    table, _, page = printed.out.rpartition("\n\n")
    assert table.splitlines()[2].startswith("| lstm | 64 | 2 | 37.9 ± 0.7 |")
    assert page == f"page: {sweep / 'summary.html'}\n"
    assert f"left out: {sweep / 'model=lstm,model.hidden_dim=-1,seed=1'} (failed)" in printed.err
    assert len(json.loads((sweep / "rows.json").read_text())) == 4
    missing = "Not in the table:\n\n- model=lstm,model.hidden_dim=-1,seed=1: failed, no <size>\n"
    assert (sweep / "summary.md").read_text() == f"{table}\n\n{missing}"
    with open(sweep / "summary.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["model.hidden_dim"], row["seeds"]) == ("64", "1 2")
    assert float(row["cider"]) == pytest.approx(0.379)
    assert float(row["cider_spread"]) == pytest.approx(0.00707, abs=1e-5)


def test_several_folders_are_one_table_and_no_page(sweep):
    assert main([str(folder) for folder in sorted(sweep.iterdir())[:3]]) == 0
    assert not list(sweep.rglob("summary.*"))


def test_a_folder_without_runs_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no finished run under" in capsys.readouterr().err
