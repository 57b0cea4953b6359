import numpy as np
import pytest

from captioning import UserError
from captioning.evaluation.results import format_p, format_results, paired_difference, score_row
from captioning.evaluation.scoring import BootstrapScores, System


def system(label, cider):
    draws = cider + np.random.default_rng(0).normal(0, 0.02, 2000)
    scores = BootstrapScores({"cider": cider, "words": 9.0}, {}, {"cider": draws})
    return System(label, [], scores, None)


def test_a_score_comes_with_half_its_interval():
    row = score_row("ours", 5, 5, system("ours", 0.52).scores)
    table = format_results({"rows": [row], "differences": []})
    assert "| ours | 5 | 52.0 ± 3.8 |" in table
    assert "difference" not in table


def test_two_systems_come_with_their_difference():
    systems = system("ours", 0.55), system("theirs", 0.52)
    difference = paired_difference(*systems)
    # The same noise moved both: none is left.
    assert difference["scores"]["cider"]["interval"] == pytest.approx((0.03, 0.03))
    rows = [score_row(system.label, 5, 5, system.scores) for system in systems]
    table = format_results({"rows": rows, "differences": [difference]})
    assert "| ours − theirs | +3.0 [+3.0, +3.0] p < 0.001 |" in table


def test_a_p_value_is_printed_as_papers_do():
    assert (format_p(0.0004), format_p(0.0456)) == ("p < 0.001", "p = 0.046")


def test_a_score_that_is_not_finite_is_an_error():
    with pytest.raises(UserError, match="ours: cider is nan"):
        score_row("ours", 5, 5, system("ours", float("nan")).scores)


def test_numbers_of_references_may_differ():
    assert score_row("ours", 2, 5, system("ours", 0.5).scores)["references"] == "2–5"
