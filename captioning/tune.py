"""Search for the best settings: `python -m captioning.tune tune=lstm_small trials=30`.

The space is YAML (conf/tune/). A killed search goes on; several workers may share its storage.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from captioning import UserError
from captioning.config.cli import run_command
from captioning.config.compose import CONF, checked_configs, key_of, resolve_config
from captioning.config.hydra_arguments import as_typed, hydra_arguments, quote, quote_path
from captioning.sweeps import study as studies

if TYPE_CHECKING:
    from optuna import Study, Trial

SEARCH_KEYS = ("tune", "storage", "trials", "heartbeat", "name")  # the rest is of training
# What decides no score, and may differ on another machine or the next day.
NON_SCORE_KEYS = (
    *("name", "run_dir", "logger", "callbacks.progress", "callbacks.gallery"),
    *("datamodule.features_root", "datamodule.resident", "trainer.gpus", "trainer.accelerator"),
    *("trainer.devices", "trainer.log_every_n_steps"),
)

log = logging.getLogger(__name__)


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="tune", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one worker of a search."""
    run_command(tune, cfg)


def tune(cfg: DictConfig) -> None:
    """Join the study, run trials until there are enough, print and write the table of trials."""
    from captioning.config.build import build
    from captioning.metrics.score_table import mode_of

    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'captioning[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    options = resolve_config(cfg.tune)
    space, fixed = options["space"], fixed_overrides(options)
    tools = {key: build(options[key]) for key in ("sampler", "pruner")}
    config = shared_config(fixed, space)
    mode = mode_of(config["monitor"])
    study = studies.open_study(cfg.name, cfg.storage, mode, cfg.heartbeat, **tools)
    studies.store_config(study, {"space": space, **config})
    done, storage = len(studies.finished_trials(study)), studies.redact_password(cfg.storage)
    log.info("%s: %d of %d trials so far", storage, done, cfg.trials)
    folder = Path(cfg.run_dir)
    if not study.get_trials(deepcopy=False) and any(folder.glob("trial-*/run.json")):
        raise UserError(f"{folder} holds trials of another search; type name=NEW")
    objective = partial(run_trial, space=space, fixed=fixed, name=cfg.name, folder=folder)
    try:
        studies.search(study, objective, cfg.trials, cfg.heartbeat)
    finally:
        table = format_trials(study, fixed, config["monitor"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trials.md").write_text(table + "\n", encoding="utf-8")
        print(table)
    if done >= cfg.trials:
        print(f"\nnothing was trained: {done} trials are finished; type trials={2 * done} for more")


def fixed_overrides(options: Mapping[str, Any]) -> list[str]:
    """Return the overrides that all trials share. Raises UserError for what a search cannot fix."""
    typed = HydraConfig.get().overrides.task
    training = [key for key in typed if re.split(r"[.@=]", key_of(key))[0] not in SEARCH_KEYS]
    fixed = [*map(quote_path, options["overrides"]), *training]
    keys = set(map(key_of, fixed))
    if both := sorted(keys & set(map(key_of, options["space"]))):
        raise UserError(f"{both[0]} is in the search space, and given: leave it out of one")
    if "ckpt_path" in keys:
        raise UserError("the trials of a search begin at the start: leave out ckpt_path=")
    return fixed


def shared_config(fixed: Sequence[str], space: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the scores of all trials: their config, and the data by content."""
    import optuna

    from captioning.config.build import build
    from captioning.config.schema import check_config
    from captioning.features.datamodule import load_records

    drawn = studies.suggest(optuna.create_study().ask(), space)
    check_config(resolve_config(hydra.compose("config", [*fixed, *to_overrides(drawn)])))
    cfg = hydra.compose("config", list(fixed))
    content = None
    if not any(key_of(key).split(".")[0] == "data" for key in space):
        source = build(resolve_config(cfg.data), "data")
        source.prepare()
        records = load_records(source)
        images = sorted((record.image_id, record.split, record.captions) for record in records)
        captions = sum(len(record.captions) for record in records)
        digest = hashlib.sha256(json.dumps(images).encode()).hexdigest()[:8]
        content = f"{len(images):,} images, {captions:,} captions ({digest})"
        cfg.data.root = None
    for path in NON_SCORE_KEYS:
        OmegaConf.update(cfg, path, None, force_add=True)
    # Unresolved, it does not depend on where this machine has its folders.
    return OmegaConf.to_container(cfg) | {"records": content}


def run_trial(
    trial: Trial, space: Mapping[str, Any], fixed: Sequence[str], name: str, folder: Path
) -> float:
    """Train with a trial's settings in a folder of its own; return the best score."""
    from pytorch_lightning.callbacks import LambdaCallback

    from captioning.training.run import train

    run_dir = folder / f"trial-{trial.number}"
    overrides = [*fixed, *to_overrides(studies.suggest(trial, space))]
    own = [f"name={quote(name)}", f"run_dir={quote(str(run_dir))}"]
    cfg = hydra.compose("config", [*overrides, *own])
    (run_dir / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, run_dir / ".hydra" / "config.yaml", resolve=True)
    OmegaConf.save(overrides, run_dir / ".hydra" / "overrides.yaml")
    gc.collect()  # the model before this one
    report = partial(studies.report_score, trial, cfg.monitor)
    with (run_dir / "report.txt").open("w", encoding="utf-8") as file, redirect_stdout(file):
        callbacks = [LambdaCallback(on_validation_end=report)]
        score = train(resolve_config(cfg), callbacks=callbacks)
    if score is None:
        raise UserError(f"the trial ended without {cfg.monitor}")
    return score


def format_trials(study: Study, fixed: Sequence[str], monitor: str) -> str:
    """Return the trials that count as a table, complete ones first, and the best as a command."""
    from captioning.evaluation.results import markdown_table

    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    trials = [trial for trial in studies.finished_trials(study) if trial.value is not None]
    trials.sort(key=lambda trial: (trial.state.name != "COMPLETE", sign * trial.value))
    if not trials:
        return "no trial has finished yet; the same command goes on"
    best, rows = trials[0], []
    for trial in trials:
        epochs, minutes = len(trial.intermediate_values), trial.duration.total_seconds() / 60
        cells = [str(trial.number), trial.state.name.lower(), f"{trial.value:.4f}"]
        cells += [str(epochs), f"{minutes:.1f}"]
        values = [trial.params.get(key) for key in best.params]
        cells += [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        rows.append(cells)
    table = markdown_table(["trial", "state", monitor, "epochs", "minutes", *best.params], rows)
    if best.state.name == "COMPLETE":
        typed = [*fixed, *to_overrides(best.params)]
        command = shlex.join(["python", "-m", "captioning.train", *map(as_typed, typed)])
        table += f"\n\nthe best, trial {best.number}:\n  {command}"
    return table


def to_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as command-line overrides, numbers to the last digit."""
    return [
        quote_path(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
        for key, value in settings.items()
    ]


if __name__ == "__main__":
    sys.argv[1:] = run_command(hydra_arguments, sys.argv[1:], "tune")
    main()
