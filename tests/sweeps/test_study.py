"""Workers that share a search, as real processes, with SQLite and with a real PostgreSQL."""

import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import Mock

import optuna
import pytest
from composing import composed
from postgres import PASSWORD, postgresql

from captioning import UserError
from captioning.sweeps import study as study_module
from captioning.sweeps.study import (
    finished_trials,
    live_trials,
    open_study,
    redact_password,
    report_score,
    search,
    store_config,
    suggest,
)
from captioning.tune import tune

WORKER = """
import sys, time
from captioning.sweeps.study import open_study, search
name, storage, trials, seconds = sys.argv[1:]

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    time.sleep(float(seconds))
    return x

search(open_study(name, storage, "max", heartbeat=1), objective, int(trials), heartbeat=1)
"""


def start_worker(storage, trials, seconds=0.05):
    arguments = ["shared", storage, str(trials), str(seconds)]
    command = [sys.executable, "-W", "error", "-c", WORKER, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(process):
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def storage(request, tmp_path_factory):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('study')}/below/study.db"
    else:
        with postgresql() as url:
            yield url


@pytest.fixture
def join(tmp_path):
    """A function that joins one study in SQLite."""
    return lambda: open_study("shared", f"sqlite:///{tmp_path}/study.db", "max", heartbeat=60)


@pytest.mark.slow
def test_a_killed_workers_trial_is_run_again_and_none_counts_twice(storage):
    killed = start_worker(storage, 12, seconds=1000)
    study = open_study("shared", storage, "max", heartbeat=1)
    while not (study.trials and study.trials[0].params):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.1)
    killed.kill()
    killed.communicate()
    for worker in [start_worker(storage, 12) for _ in range(3)]:
        wait_for(worker)
    finished = finished_trials(study)
    assert len(finished) == 12
    stale = study.get_trials()[0]
    assert stale.state == optuna.trial.TrialState.FAIL
    (retried,) = [trial for trial in finished if trial.system_attrs.get("failed_trial") == 0]
    assert retried.params == stale.params
    # The same command again, and no more than it asks for.
    wait_for(start_worker(storage, 12))
    wait_for(start_worker(storage, 14))
    assert len(finished_trials(study)) == 14


def test_a_study_is_joined_and_only_its_missing_trials_are_run(storage):
    study = open_study("of-a-test", storage, "max", heartbeat=1)
    search(study, lambda trial: trial.suggest_float("x", 0, 1), 3, heartbeat=1)
    search(open_study("of-a-test", storage, "max", heartbeat=1), None, 3, heartbeat=1)
    assert len(finished_trials(study)) == 3


def test_of_two_that_take_the_last_trial_one_gives_it_back(join, monkeypatch):
    study, joined = join(), join()
    numbers = []

    def objective(trial):
        numbers.append(trial.number)
        # Meanwhile the other worker, which looked before this trial began, takes one too many.
        stale = iter([[], []])
        with monkeypatch.context() as patch, pytest.raises(TimeoutError):
            patch.setattr(study_module, "live_trials", lambda s: next(stale, live_trials(s)))
            patch.setattr(study_module.time, "sleep", Mock(side_effect=TimeoutError))
            search(joined, objective, 1, heartbeat=60)
        return 1.0

    search(study, objective, 1, heartbeat=60)
    assert numbers == [0]
    assert len(study.trials) == 2
    assert len(finished_trials(study)) == 1


def test_failures_in_a_row_end_a_worker_with_the_reason(join):
    def objective(trial):
        if trial.number == 1:
            return 1.0
        raise OSError("the disk is full")

    with pytest.raises(UserError, match=r"3 trials in a row failed, .*: the disk is full"):
        search(join(), objective, 9, heartbeat=60)
    trials = join().trials
    assert len(trials) == 5
    assert trials[4].user_attrs["error"] == "OSError: the disk is full"


def test_a_study_goes_on_with_the_config_of_its_trials_only(join):
    config = {"space": {"x": [1, 2]}, "data": {"name": "a"}, "epochs": 1}
    store_config(join(), config)
    store_config(join(), dict(reversed(config.items())))
    changed = config | {"space": {"x": [1, 2, 3]}, "data": {"name": "b"}}
    with pytest.raises(UserError) as error:
        store_config(join(), changed)
    assert str(error.value) == (
        "the trials of shared had another config:\n  space.x: [1, 2] → [1, 2, 3]\n"
        "  data.name: a → b\ntype name=NEW for a search of its own"
    )


def test_a_study_with_trials_of_an_unknown_config_is_not_joined(join):
    search(join(), lambda trial: 1.0, 1, heartbeat=60)
    with pytest.raises(UserError, match="trials of shared had another config"):
        store_config(join(), {"x": 1})


def test_values_come_from_the_space():
    study = optuna.create_study()
    space = {
        "model": ["lstm", "merge"],
        "size": {"low": 8, "high": 64, "log": True},
        "smoothing": {"low": 0.0, "high": 0.2, "step": 0.1},
    }
    for _ in range(20):
        drawn = suggest(study.ask(), space)
        assert drawn["model"] in ("lstm", "merge")
        assert isinstance(drawn["size"], int) and 8 <= drawn["size"] <= 64
        assert round(10 * drawn["smoothing"], 9) in (0, 1, 2)


@pytest.mark.parametrize("choices", [[], 5, {"low": 1}, {"low": 2, "high": 1}, {"lowest": 1}])
def test_what_is_no_space_is_an_error(choices):
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
def test_an_error_of_a_storage_shows_no_password(storage):
    with pytest.raises(UserError, match="cannot be used") as error:
        open_study("x", storage, "max", heartbeat=60)
    assert PASSWORD not in str(error.value)


def test_passwords_with_signs_are_redacted():
    shown = redact_password("postgresql+psycopg://me:se/cr@et@host:5432/db")
    assert shown == "postgresql+psycopg://me:***@host:5432/db"


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/cider", "max")])
def test_a_search_looks_for_the_better_end_of_what_is_monitored(monitor, mode, monkeypatch):
    def open_study(name, storage, mode, heartbeat, **tools):
        raise UserError(f"opened for {mode}")

    monkeypatch.setattr(study_module, "open_study", open_study)
    monkeypatch.setattr("captioning.tune.shared_config", lambda *_: {"monitor": monitor})
    with pytest.raises(UserError, match=f"opened for {mode}"):
        tune(composed(f"monitor={monitor}", config="tune"))


def validation(epoch, score, fn="fit", sanity_checking=False):
    """A trainer at the end of a validation."""
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        callback_metrics={"val/cider": score},
        current_epoch=epoch,
        sanity_checking=sanity_checking,
    )


def test_the_scores_of_epochs_are_reported_and_no_others():
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    report_score(trial, "val/cider", validation(0, 9.0, sanity_checking=True), None)
    report_score(trial, "val/cider", validation(0, 0.25), None)
    report_score(trial, "val/cider", validation(1, 1.25), None)
    report_score(trial, "val/cider", validation(2, 9.0, fn="validate"), None)  # of best.ckpt
    assert study.trials[0].intermediate_values == {0: 0.25, 1: 1.25}


def test_a_trial_worse_than_the_median_is_pruned():
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    earlier, trial = study.ask(), study.ask()
    for epoch in range(2):
        earlier.report(5.0, epoch)
    study.tell(earlier, 9.0)
    report_score(trial, "val/cider", validation(0, 0.25), None)
    with pytest.raises(optuna.TrialPruned, match=r"val/cider 1\.2500 after epoch 1"):
        report_score(trial, "val/cider", validation(1, 1.25), None)
