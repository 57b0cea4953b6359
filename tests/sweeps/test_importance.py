import itertools

import numpy as np
import pytest
from sweeps_writing import write_run

from captioning.sweeps.importance import effect_of, importance, levels
from captioning.sweeps.runs import read_runs
from captioning.sweeps.tables import best_first


@pytest.fixture
def effects(tmp_path):
    """Return a function that writes a grid of x, y and seeds scored by `score`."""

    def measure(score, seeds=(1, 2)):
        for x, y, seed in itertools.product((1, 2, 3), (1, 2), seeds):
            folder = tmp_path / f"{x}{y}{seed}"
            write_run(folder, [f"x={x}", f"y={y}"], seed, score(x, y, seed))
        found = importance(best_first(read_runs([tmp_path])), ["x", "y"], "cider")
        return {effect.key: effect for effect in found}

    return measure


def test_shares_of_a_full_grid_without_interactions_add_up_to_one(effects):
    found = effects(lambda x, y, seed: 0.3 * x + 0.1 * y + 0.05 * seed)
    assert sum(effect.share for effect in found.values()) == pytest.approx(1)
    # Variances of 0.3 x, 0.1 y and 0.05 seed, each equally often.
    variances = {"x": 0.09 * 2 / 3, "y": 0.01 / 4, "seed": 0.0025 / 4}
    for key, variance in variances.items():
        assert found[key].share == pytest.approx(variance / sum(variances.values()))
    assert list(found) == ["x", "y", "seed"]


def test_where_all_score_the_same_nothing_mattered(effects):
    assert effects(lambda x, y, seed: 0.5) == {}


def test_the_mark_is_what_a_setting_without_effect_reaches_on_average():
    random, level = np.random.default_rng(0), np.repeat([0, 1, 2], 4)
    found = [effect_of("x", level, random.normal(size=12)) for _ in range(300)]
    assert found[0].by_chance == pytest.approx(2 / 11)
    assert np.mean([effect.share for effect in found]) == pytest.approx(2 / 11, abs=0.02)


def test_values_that_came_once_each_cannot_be_judged(tmp_path):
    for x in range(4):
        write_run(tmp_path / str(x), [f"x={x}"], 1, 0.1 * x)
    assert importance(best_first(read_runs([tmp_path])), ["x"], "cider") == []


def test_many_numbers_are_grouped_and_few_are_not():
    assert levels([0.1, 0.2, 0.1]).tolist() == [0, 1, 0]
    assert len(set(levels(list(range(12))).tolist())) == 4
    assert len(set(levels([str(at) for at in range(12)]).tolist())) == 12
