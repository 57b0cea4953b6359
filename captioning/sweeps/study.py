"""A hyperparameter search that many workers share: an Optuna study in a database.

Exactly `trials` of them are finished, over all workers and restarts; Optuna's MaxTrialsCallback
ends each worker after the trial that is one too many.
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
    from pytorch_lightning import LightningModule, Trainer

MAX_FAILURES = 3  # in a row, before a worker gives up

log = logging.getLogger(__name__)


def redact_password(storage: str) -> str:
    """Return a storage's URL, or a text with it, without the password."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", storage)


def open_study(name: str, storage: str, mode: str, heartbeat: int, **tools: Any) -> Study:
    """Create the study or join it. `mode` is "max" or "min", `heartbeat` in seconds.

    `tools` are Optuna's `sampler` and `pruner`. Raises UserError if the storage cannot be used.
    """
    import optuna
    import sqlalchemy

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, since 2.9
    race_errors = sqlalchemy.exc.SQLAlchemyError  # two workers created the tables at once
    for attempts_left in reversed(range(5)):
        try:
            if storage.startswith("sqlite:///"):
                Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            database = optuna.storages.RDBStorage(
                storage,
                # A connection a query: workers seldom ask, for days, and databases restart.
                engine_kwargs={"poolclass": sqlalchemy.pool.NullPool},
                heartbeat_interval=heartbeat,
                grace_period=4 * heartbeat,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
            options = {"direction": f"{mode}imize", "load_if_exists": True, **tools}
            return optuna.create_study(storage=database, study_name=name, **options)
        except (race_errors, optuna.exceptions.StorageInternalError, ImportError, OSError) as error:
            if attempts_left and isinstance(error, race_errors):
                time.sleep(0.5)
                continue
            reason = redact_password(str(error.__cause__ or error).strip().split("\n")[0])
            raise UserError(
                f"storage={redact_password(storage)} cannot be used: {reason}; it is "
                "sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE, the password in "
                "~/.pgpass"
            ) from None


def store_config(study: Study, config: dict[str, Any]) -> None:
    """Store the config that all trials of a study share, in plain types.

    Raises UserError if its trials were trained with another, or with an unknown one.
    """
    if not live_trials(study) and "config" not in study.user_attrs:
        study.set_user_attr("config", config)
    if changes := differences(study.user_attrs.get("config", {}), config):
        lines = "".join(f"\n  {change}" for change in changes)
        raise UserError(
            f"the trials of {study.study_name} had another config:{lines}\n"
            "type name=NEW for a search of its own"
        )


def search(study: Study, objective: Callable[[Trial], float], trials: int, heartbeat: int) -> None:
    """Run trials until `trials` are complete or pruned, whoever ran them; wait for the last ones.

    The trial of a worker that fell silent is run again. Raises UserError if `MAX_FAILURES`
    trials in a row fail.
    """
    import optuna

    failures: list[str] = []  # since the last success

    def run_trial(trial: Trial) -> float:
        if is_surplus(study, trial, trials):
            raise RuntimeError("another worker has this trial already")
        try:
            score = objective(trial)
        except optuna.TrialPruned as reason:
            log.info("trial %d pruned: %s", trial.number, reason)
            failures.clear()
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            log.warning("trial %d failed: %s", trial.number, error)
            failures.append(str(error))
            raise
        log.info("trial %d: %.4f", trial.number, score)
        failures.clear()
        return score

    while len(finished_trials(study)) < trials:
        optuna.storages.fail_stale_trials(study)
        states = [trial.state for trial in live_trials(study)]
        if len(states) >= trials and optuna.trial.TrialState.WAITING not in states:
            time.sleep(heartbeat)  # others run the last ones, and might die
            continue
        try:
            study.optimize(run_trial, n_trials=1, catch=Exception)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            log.warning("a trial sent no heartbeat in time and is run again by another worker")
        if len(failures) == MAX_FAILURES:
            raise UserError(f"{MAX_FAILURES} trials in a row failed, the last with: {failures[-1]}")


def is_surplus(study: Study, trial: Trial, trials: int) -> bool:
    """Tell whether a trial is one too many, as two workers saw the same one missing or dead.

    Of the two, the later trial has the higher number.
    """
    ahead = sum(other.number < trial.number for other in live_trials(study))
    retries = [each.system_attrs.get("retry_history") for each in study.get_trials(deepcopy=False)]
    retried = retries[trial.number]
    return ahead >= trials or bool(retried and retried in retries[: trial.number])


def report_score(trial: Trial, monitor: str, trainer: Trainer, module: LightningModule) -> None:
    """Report a validation's score to the trial; raise TrialPruned where the pruner says so."""
    import optuna

    if trainer.sanity_checking or trainer.state.fn != "fit":
        return  # what is validated after the fit is best.ckpt
    score = float(trainer.callback_metrics[monitor])
    trial.report(score, trainer.current_epoch)
    if trial.should_prune():
        raise optuna.TrialPruned(f"{monitor} {score:.4f} after epoch {trainer.current_epoch}")


def finished_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that count: complete or pruned."""
    return [trial for trial in live_trials(study) if trial.state.is_finished()]


def live_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that count or may come to count: all but the failed."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name != "FAIL"]


def suggest(trial: Trial, space: Mapping[str, Any]) -> dict[str, Any]:
    """Draw a value for each key: from a list, or between `low` and `high` (`log`, `step`).

    Integers where low and high are. Raises UserError for anything else.
    """
    drawn = {}
    for key, choices in space.items():
        if isinstance(choices, list) and choices:
            drawn[key] = trial.suggest_categorical(key, choices)
            continue
        try:
            integer = all(isinstance(choices[end], int) for end in ("low", "high"))
            draw = trial.suggest_int if integer else trial.suggest_float
            drawn[key] = draw(key, **choices)
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"tune.space: {key}: {choices} is neither a list of values nor "
                f"{{low: A, high: B}} with log: true or step: C ({error})"
            ) from None
    return drawn
