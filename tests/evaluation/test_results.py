import numpy as np
import pytest

from captioning import UserError
from captioning.evaluation.results import difference, markdown, p_text, row
from captioning.evaluation.scoring import Measured, System


def system(label, cider):
    draws = cider + np.random.default_rng(0).normal(0, 0.02, 2000)
    measured = Measured({"cider": cider, "words": 9.0}, {}, {"cider": draws})
    return System(label, [], measured, None)


def table(*systems):
    rows = [row(one.label, 5, 5, one.scores) | {"held_out": False} for one in systems]
    differences = [difference(*systems)] if len(systems) == 2 else []
    return {"rows": rows, "differences": differences}


def test_a_score_comes_with_half_its_interval():
    assert "| ours | 5 | 52.0 ± 3.8 |" in markdown(table(system("ours", 0.52)))


def test_two_systems_come_with_their_difference():
    measured = table(system("ours", 0.55), system("theirs", 0.52))
    found = measured["differences"][0]["scores"]["cider"]
    # The same noise moved both: none is left.
    assert found["interval"] == pytest.approx((0.03, 0.03))
    assert "| ours − theirs | +3.0 [+3.0, +3.0] p < 0.001 |" in markdown(measured)


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(UserError, match="ours: cider is nan"):
        table(system("ours", float("nan")))


def test_one_system_has_no_difference():
    assert "difference" not in markdown(table(system("ours", 0.52)))


def test_numbers_of_references_may_differ():
    assert row("ours", 2, 5, system("ours", 0.5).scores)["references"] == "2–5"


def test_a_p_value_is_printed_as_papers_do():
    assert p_text(0.0004) == "p < 0.001"
    assert p_text(0.0456) == "p = 0.046"
