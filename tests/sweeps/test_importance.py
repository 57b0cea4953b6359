import itertools

import numpy as np
import pytest
from sweeps_writing import write_run

from captioning.sweeps.importance import importance, levels, measure_effect
from captioning.sweeps.runs import read_runs
from captioning.sweeps.summary import rank_configs


@pytest.fixture
def effects(tmp_path):
    """Return a function that measures a grid of x, y and seeds scored by `score`."""

    def measure(score):
        for x, y, seed in itertools.product((1, 2, 3), (1, 2), (1, 2)):
            folder = tmp_path / f"{x}{y}{seed}"
            write_run(folder, [f"x={x}", f"y={y}"], seed, score(x, y, seed))
        effects = importance(rank_configs(read_runs([tmp_path])), ["x", "y"], "cider")
        return {effect.key: effect for effect in effects}

    return measure


def test_shares_of_a_full_grid_without_interactions_add_up_to_one(effects):
    grid = effects(lambda x, y, seed: 0.3 * x + 0.1 * y + 0.05 * seed)
    assert sum(effect.share for effect in grid.values()) == pytest.approx(1)
    # Variances of 0.3 x, 0.1 y and 0.05 seed, each equally often.
    variances = {"x": 0.09 * 2 / 3, "y": 0.01 / 4, "seed": 0.0025 / 4}
    for key, variance in variances.items():
        assert grid[key].share == pytest.approx(variance / sum(variances.values()))
    assert list(grid) == ["x", "y", "seed"]


def test_equal_scores_have_no_effects(effects):
    assert effects(lambda x, y, seed: 0.5) == {}


def test_values_that_came_once_each_are_left_out():
    assert measure_effect("x", np.arange(4), np.arange(4.0)) is None


def test_by_chance_is_the_mean_share_of_a_setting_without_effect():
    rng, level = np.random.default_rng(0), np.repeat([0, 1, 2], 4)
    effects = [measure_effect("x", level, rng.normal(size=12)) for _ in range(300)]
    assert effects[0].by_chance == pytest.approx(2 / 11)
    assert np.mean([effect.share for effect in effects]) == pytest.approx(2 / 11, abs=0.02)


def test_many_numbers_are_grouped_and_few_are_not():
    assert levels([0.1, 0.2, 0.1]).tolist() == [0, 1, 0]
    assert len(set(levels(list(range(12))).tolist())) == 4
    assert len(set(levels([str(at) for at in range(12)]).tolist())) == 12
