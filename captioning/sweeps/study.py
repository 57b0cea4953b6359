"""A search that many workers share: an Optuna study, its storage, and who runs which trial.

A storage and an objective enter; exactly as many finished trials leave, over all workers and
restarts. Next: tune.py, the verb.
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning import UserError
from captioning.config.compose import differences

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

IN_A_ROW = 3  # trials that may fail before a worker gives up
SURPLUS = "another worker has this trial already"

log = logging.getLogger(__name__)


def redact_password(storage: str) -> str:
    """Return a storage's URL without its password, fit to be shown."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", storage)


def open_study(
    name: str, storage: str, mode: str, heartbeat: int, sampler: Any = None, pruner: Any = None
) -> Study:
    """Make the study or join it. `mode` is "max" or "min", `heartbeat` in seconds.

    Raises UserError where the storage cannot be reached.
    """
    import optuna
    import sqlalchemy

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, since 2.9
    try:
        if storage.startswith("sqlite:///"):
            Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(5):
            try:
                return _join(name, storage, mode, heartbeat, sampler, pruner)
            except sqlalchemy.exc.SQLAlchemyError:  # two workers at once made the tables
                if attempt == 4:
                    raise
                time.sleep(0.5)
    except (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.StorageInternalError,
        ImportError,
        OSError,
    ) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise UserError(
            f"storage={redact_password(storage)} cannot be used: {redact_password(reason)}; it is "
            "sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE, the password in ~/.pgpass"
        ) from None


def _join(name: str, storage: str, mode: str, heartbeat: int, sampler: Any, pruner: Any) -> Study:
    import optuna
    import sqlalchemy

    opened = optuna.storages.RDBStorage(
        storage,
        # A connection a question: workers ask seldom, for days, and databases restart.
        engine_kwargs={"poolclass": sqlalchemy.pool.NullPool},
        heartbeat_interval=heartbeat,
        grace_period=4 * heartbeat,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )
    study = optuna.create_study(
        storage=opened,
        sampler=sampler,
        pruner=pruner,
        study_name=name,
        direction=f"{mode}imize",
        load_if_exists=True,
    )
    if study.direction.name != f"{mode}imize".upper():  # that of a study that exists wins
        asked = study.direction.name.lower()
        raise UserError(f"the study {name} was begun to {asked} its score; type name=NEW")
    return study


def store_config(study: Study, config: dict[str, Any]) -> None:
    """Store in a study what all its trials share, in plain types.

    Raises UserError where they share something else, and where that is not known.
    """
    if "config" not in study.user_attrs:
        if trials := alive(study):
            raise UserError(
                f"what the {len(trials)} trials of {study.study_name} were trained with was not "
                "noted by the version that made them; type name=NEW for a search of its own"
            )
        study.set_user_attr("config", config)
    if changed := differences(study.user_attrs["config"], config):
        lines = "".join(f"\n  {line}" for line in changed)
        raise UserError(
            f"the trials of {study.study_name} had another config:{lines}\n"
            "type name=NEW for a search of its own"
        )


def search(study: Study, objective: Callable[[Trial], float], trials: int, heartbeat: int) -> None:
    """Run trials until `trials` are complete or pruned, whoever ran them; wait for the last ones.

    A trial whose worker fell silent is run again. Raises UserError where three in a row fail.
    """
    import optuna

    errors: list[str] = []

    def run(trial: Trial) -> float:
        # Two workers may both have seen one trial missing, or both a third one dead. The later
        # trial has the higher number, and is none.
        every = study.get_trials(deepcopy=False)
        ahead = sum(one.number < trial.number for one in alive(study))
        retried = every[trial.number].system_attrs.get("retry_history")
        others = [one.system_attrs.get("retry_history") for one in every[: trial.number]]
        if ahead >= trials or (retried and retried in others):
            raise RuntimeError(SURPLUS)
        return objective(trial)

    while len(finished(study)) < trials:
        optuna.storages.fail_stale_trials(study)
        states = [one.state for one in alive(study)]
        if len(states) >= trials and optuna.trial.TrialState.WAITING not in states:
            time.sleep(heartbeat)  # others are at the last ones, and might die
            continue
        try:
            study.optimize(_noting(run, errors), n_trials=1, catch=Exception)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            log.warning("a trial took no notice of its time and is run again by another worker")
        if len(errors) == IN_A_ROW:
            raise UserError(f"{IN_A_ROW} trials in a row failed, the last one with: {errors[-1]}")


def _noting(run: Callable[[Trial], float], errors: list[str]) -> Callable[[Trial], float]:
    """Keep the reasons of failures since the last success."""
    import optuna

    def noted(trial: Trial) -> float:
        try:
            score = run(trial)
        except optuna.TrialPruned as reason:
            log.info("trial %d pruned: %s", trial.number, reason)
            errors.clear()
            raise
        except Exception as error:
            if str(error) != SURPLUS:
                trial.set_user_attr("error", f"{type(error).__name__}: {error}")
                log.warning("trial %d failed: %s", trial.number, error)
                errors.append(str(error))
            raise
        log.info("trial %d: %.4f", trial.number, score)
        errors.clear()
        return score

    return noted


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that count."""
    return [one for one in alive(study) if one.state.is_finished()]


def alive(study: Study) -> list[FrozenTrial]:
    """Return the trials that count or may come to count: all but the failed."""
    from optuna.trial import TrialState

    states = [state for state in TrialState if state != TrialState.FAIL]
    return study.get_trials(deepcopy=False, states=states)


def suggest(trial: Trial, space: Mapping[str, Any]) -> dict[str, Any]:
    """Draw a value for each key: from a list, or between `low` and `high` (`log`, `step`).

    Whole numbers where low and high are. Raises UserError for anything else.
    """
    drawn = {}
    for key, choices in space.items():
        if isinstance(choices, list) and choices:
            drawn[key] = trial.suggest_categorical(key, choices)
            continue
        try:
            whole = all(isinstance(choices[end], int) for end in ("low", "high"))
            draw = trial.suggest_int if whole else trial.suggest_float
            drawn[key] = draw(key, **choices)
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"tune.space: {key}: {choices} is neither a list of values nor "
                f"{{low: A, high: B}} with log: true or step: C ({error})"
            ) from None
    return drawn
