import json

import pytest
from sweeps_writing import write_run

from captioning import UserError
from captioning.summarize import main, markdown, summarize


@pytest.fixture
def runs(tmp_path):
    for seed, cider in ((1, 0.40), (2, 0.44), (3, 0.48)):
        write_run(tmp_path / f"lstm{seed}", ["model=lstm"], seed, cider)
    write_run(tmp_path / "merge", ["model=merge"], 1, 0.5)
    write_run(tmp_path / "broken", ["model=merge"], 2, 0.9, status="failed")
    return tmp_path


def test_seeds_are_folded_into_mean_and_standard_deviation(runs):
    row = next(row for row in summarize([runs]) if row["config"] == ["model=lstm"])
    assert row["seeds"] == [1, 2, 3]
    assert row["scores"]["cider"]["mean"] == pytest.approx(0.44)
    assert row["scores"]["cider"]["spread"] == pytest.approx(0.04)
    assert row["seconds_per_epoch"] == 20


def test_the_best_comes_first_and_a_failed_run_nowhere(runs):
    rows = summarize([runs])
    assert [row["config"] for row in rows] == [["model=merge"], ["model=lstm"]]
    assert rows[0]["seeds"] == [1]


def test_the_table_shows_scores_times_100(runs):
    table = markdown(summarize([runs]))
    assert "| model | seeds | cider |" in table
    assert "| lstm | 3 | 44.0 ± 4.0 |" in table


def test_the_verb_writes_what_it_prints(runs, capsys):
    assert main([str(runs), f"out={runs / 'rows.json'}"]) == 0
    printed = capsys.readouterr().out
    assert "44.0 ± 4.0" in printed
    assert f"page: {runs / 'summary.html'}" in printed
    assert "44.0 ± 4.0" in (runs / "summary.md").read_text()
    assert {"summary.csv", "summary.html"} <= {path.name for path in runs.iterdir()}
    assert len(json.loads((runs / "rows.json").read_text())) == 2


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no finished run under"):
        summarize([tmp_path])


def test_several_folders_are_one_table_and_no_page(runs):
    folders = [str(runs / "lstm1"), str(runs / "merge")]
    assert main(folders) == 0
    assert not list(runs.rglob("summary.*"))
