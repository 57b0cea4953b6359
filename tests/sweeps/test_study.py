"""Workers that share a search, as real processes, with SQLite and with a real PostgreSQL."""

import subprocess
import sys
import time

import optuna
import pytest
from composing import composed
from postgres import PASSWORD, postgresql

from captioning import UserError
from captioning.sweeps import study as study_module
from captioning.sweeps.study import (
    alive,
    finished,
    open_study,
    redact_password,
    search,
    store_config,
    suggest,
)
from captioning.tune import tune

WORKER = """
import sys, time
from captioning.sweeps.study import open_study, search
name, storage, trials, pace = sys.argv[1:]

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    time.sleep(float(pace))
    return x

search(open_study(name, storage, "max", heartbeat=1), objective, int(trials), heartbeat=1)
"""


def worker(name, storage, trials, pace=0.05):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKER, name, storage, str(trials), str(pace)],
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def storage(request, tmp_path_factory):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('study')}/below/study.db"
    else:
        with postgresql() as url:
            yield url


@pytest.fixture
def study(storage):
    return open_study("of-a-test", storage, "max", heartbeat=1)


@pytest.mark.slow
def test_a_killed_workers_trial_is_run_again_and_none_counts_twice(storage):
    hangs = worker("shared", storage, 12, pace=1000)
    study = open_study("shared", storage, "max", heartbeat=1)
    while not (study.trials and study.trials[0].params):
        assert hangs.poll() is None, hangs.stderr.read()
        time.sleep(0.1)
    hangs.kill()
    hangs.communicate()
    workers = [worker("shared", storage, 12) for _ in range(3)]
    for one in workers:
        ended(one)
    trials = study.get_trials()
    assert len(finished(study)) == 12
    dead = trials[0]
    assert dead.state == optuna.trial.TrialState.FAIL
    (again,) = [one for one in finished(study) if one.system_attrs.get("failed_trial") == 0]
    assert again.params == dead.params
    # The same command again, and no more than it asks for.
    ended(worker("shared", storage, 12))
    ended(worker("shared", storage, 14))
    assert len(finished(study)) == 14


def test_what_is_finished_elsewhere_is_not_run_here(study):
    search(study, lambda trial: trial.suggest_float("x", 0, 1), 3, heartbeat=1)
    search(study, None, 3, heartbeat=1)
    assert len(finished(study)) == 3


def test_of_two_that_take_the_last_trial_one_gives_it_back(tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path}/study.db"
    study, joined = (open_study("race", storage, "max", heartbeat=60) for _ in range(2))
    ran = []

    class Waits(Exception):
        pass

    def waits(seconds):
        raise Waits

    def objective(trial):
        ran.append(trial.number)
        # Meanwhile the other worker, which looked before this trial began, takes one too many.
        looked = iter([[], []])
        with monkeypatch.context() as patch:
            patch.setattr(study_module, "alive", lambda study: next(looked, alive(study)))
            patch.setattr(study_module.time, "sleep", waits)
            with pytest.raises(Waits):
                search(joined, objective, 1, heartbeat=60)
        return 1.0

    search(study, objective, 1, heartbeat=60)
    assert ran == [0]
    assert len(study.trials) == 2
    assert len(finished(study)) == 1


def test_failures_in_a_row_end_a_worker_with_the_reason(tmp_path):
    study = open_study("fails", f"sqlite:///{tmp_path}/study.db", "max", heartbeat=60)

    def objective(trial):
        if trial.number == 1:
            return 1.0
        raise OSError("the disk is full")

    with pytest.raises(UserError, match=r"3 trials in a row failed, .*: the disk is full"):
        search(study, objective, 9, heartbeat=60)
    assert len(study.trials) == 5
    assert study.trials[4].user_attrs["error"] == "OSError: the disk is full"


@pytest.fixture
def shared(tmp_path):
    """A function that joins one study."""
    return lambda: open_study("shared", f"sqlite:///{tmp_path}/study.db", "max", heartbeat=60)


def test_a_study_goes_on_with_the_config_of_its_trials_only(shared):
    first = {"space": {"x": [1, 2]}, "data": {"name": "a"}, "epochs": 1}
    store_config(shared(), first)
    search(shared(), lambda trial: 1.0, 1, heartbeat=60)
    store_config(shared(), dict(reversed(first.items())))
    other = {"space": {"x": [1, 2, 3]}, "data": {"name": "b"}, "epochs": 1}
    with pytest.raises(UserError) as refused:
        store_config(shared(), other)
    assert str(refused.value) == (
        "the trials of shared had another config:\n  space.x: [1, 2] → [1, 2, 3]\n"
        "  data.name: a → b\ntype name=NEW for a search of its own"
    )
    store_config(shared(), first)


def test_a_study_without_a_config_takes_no_more_trials(shared):
    search(shared(), lambda trial: 1.0, 1, heartbeat=60)
    with pytest.raises(UserError, match=r"the 1 trials of shared .* type name=NEW"):
        store_config(shared(), {"x": 1})


def test_values_come_from_the_space():
    study = optuna.create_study()
    space = {
        "model": ["lstm", "merge"],
        "model.hidden_dim": {"low": 8, "high": 64, "log": True},
        "rate": {"low": 1e-4, "high": 1.0, "log": True},
        "smoothing": {"low": 0.0, "high": 0.2, "step": 0.1},
    }
    for _ in range(20):
        drawn = suggest(study.ask(), space)
        assert drawn["model"] in ("lstm", "merge")
        assert isinstance(drawn["model.hidden_dim"], int) and 8 <= drawn["model.hidden_dim"] <= 64
        assert 1e-4 <= drawn["rate"] <= 1
        assert round(10 * drawn["smoothing"]) in (0, 1, 2)


@pytest.mark.parametrize("choices", [[], 5, {"low": 1}, {"low": 2, "high": 1}, {"lowest": 1}])
def test_what_is_no_space_is_said(choices):
    with pytest.raises(UserError, match="rate"):
        suggest(optuna.create_study().ask(), {"rate": choices})


@pytest.mark.parametrize(
    "storage",
    [
        f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/nowhere",
        f"postgresql+nothing://me:{PASSWORD}@127.0.0.1/x",
        "nonsense",
        "sqlite:////proc/nowhere/study.db",
    ],
)
def test_a_storage_that_cannot_be_used_is_said(storage):
    with pytest.raises(UserError, match="cannot be used") as error:
        open_study("x", storage, "max", heartbeat=60)
    assert PASSWORD not in str(error.value)


def test_passwords_are_hidden():
    shown = redact_password("postgresql+psycopg://me:se/cr@et@host:5432/db")
    assert shown == "postgresql+psycopg://me:***@host:5432/db"
    assert redact_password("sqlite:///study.db") == "sqlite:///study.db"


def test_a_study_of_the_other_end_is_not_gone_on_with(study, storage):
    assert study.direction.name == "MAXIMIZE"
    with pytest.raises(UserError, match="type name=NEW"):
        open_study("of-a-test", storage, "min", heartbeat=1)


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/cider", "max")])
def test_a_search_looks_for_the_better_end_of_what_is_monitored(monitor, mode, monkeypatch):
    class Opened(Exception):
        pass

    def opened(name, storage, mode, heartbeat, **tools):
        raise Opened(mode)

    monkeypatch.setattr(study_module, "open_study", opened)
    monkeypatch.setattr("captioning.tune.shared_config", lambda *_: {"monitor": monitor})
    with pytest.raises(Opened, match=mode):
        tune(composed(f"monitor={monitor}", config="tune"))
