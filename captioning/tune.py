"""Search for the best settings: `python -m captioning.tune tune=lstm_small trials=30`.

A search space in YAML enters; trials, a table of them and the best as a command leave. Killed or
joined by others, the search goes on in its storage.
"""

from __future__ import annotations

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

from captioning.config.cli import run_verb
from captioning.config.compose import CONF, checked_configs, key_of
from captioning.config.hydra_arguments import hydra_arguments

if TYPE_CHECKING:
    from optuna import Study, Trial

# What on the command line is of the search; the rest is of training.
OWN = ("tune", "storage", "trials", "heartbeat", "name")
# What decides no score, and may be another one on another machine or the next day.
ELSEWHERE = ("name", "run_dir", "logger", "callbacks.progress", "callbacks.gallery")
ELSEWHERE += ("datamodule.features_root", "datamodule.resident")
ELSEWHERE += tuple(
    f"trainer.{key}" for key in ("gpus", "accelerator", "devices", "log_every_n_steps")
)

log = logging.getLogger(__name__)


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="tune", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one worker of a search."""
    run_verb(tune, cfg)


def tune(cfg: DictConfig) -> None:
    """Join the study, run trials until there are enough, say what came of it."""
    from captioning import UserError
    from captioning.config.build import build
    from captioning.config.compose import resolve_config
    from captioning.metrics.score_table import mode_of

    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'captioning[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from captioning.sweeps.study import finished, open_study, redact_password, search, store_config

    options = resolve_config(cfg.tune)
    space = options["space"]
    given = [one for one in HydraConfig.get().overrides.task if not is_own(one)]
    fixed = [*options["overrides"], *given]
    both = sorted({key_of(one) for one in fixed} & set(map(key_of, space)))
    if both:
        raise UserError(f"{both[0]} is in the search space, and given: leave it out of one")
    if "ckpt_path" in map(key_of, fixed):
        raise UserError("the trials of a search begin at the start: leave out ckpt_path=")
    tools = {key: build(options[key]) for key in ("sampler", "pruner")}
    config = shared_config(fixed, space)
    study = open_study(cfg.name, cfg.storage, mode_of(config["monitor"]), cfg.heartbeat, **tools)
    store_config(study, {"space": space, **config})
    done = len(finished(study))
    log.info("%s: %d of %d trials so far", redact_password(cfg.storage), done, cfg.trials)
    folder = Path(cfg.run_dir)
    if not study.get_trials(deepcopy=False) and any(folder.glob("trial-*/run.json")):
        raise UserError(
            f"{folder} holds trials of another search; type name=NEW for one of its own"
        )
    objective = partial(run_trial, space=space, fixed=fixed, name=cfg.name, folder=folder)
    try:
        search(study, objective, cfg.trials, cfg.heartbeat)
    finally:
        text = summary(study, fixed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trials.md").write_text(text + "\n", encoding="utf-8")
        print(text)
    if done >= cfg.trials:
        found = f"{done} of {cfg.trials} trials are finished"
        print(f"\nnothing was trained, as {found}; type trials={2 * done} for more")


def shared_config(fixed: Sequence[str], space: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the scores of all trials alike: their config, and the data by content.

    Raises UserError for what no trial could be trained with.
    """
    import optuna

    from captioning.config.build import build
    from captioning.config.compose import resolve_config
    from captioning.config.schema import check_config
    from captioning.features.datamodule import load_records
    from captioning.sweeps.study import suggest

    drawn = suggest(optuna.create_study().ask(), space)
    check_config(resolve_config(hydra.compose("config", [*fixed, *written(drawn)])))
    cfg = hydra.compose("config", list(fixed))
    records = None
    if not any(key_of(key).split(".")[0] == "data" for key in space):
        source = build(resolve_config(cfg.data), "data")
        source.prepare()
        images = sorted((one.image_id, one.split, one.captions) for one in load_records(source))
        captions = sum(len(one[2]) for one in images)
        digest = hashlib.sha256(json.dumps(images).encode()).hexdigest()[:8]
        records = f"{len(images):,} images, {captions:,} captions ({digest})"
        cfg.data.root = None
    for path in ELSEWHERE:
        OmegaConf.update(cfg, path, None, force_add=True)
    # Unresolved, it does not depend on where this machine has its folders.
    return OmegaConf.to_container(cfg) | {"records": records}


def run_trial(
    trial: Trial, space: Mapping[str, Any], fixed: Sequence[str], name: str, folder: Path
) -> float:
    """Train with a trial's settings in a folder of its own; return the best score."""
    import gc

    from captioning import UserError
    from captioning.config.compose import resolve_config
    from captioning.sweeps.pruning import Pruning
    from captioning.sweeps.study import suggest
    from captioning.training.run import train

    own = folder / f"trial-{trial.number}"
    overrides = [*fixed, *written(suggest(trial, space))]
    cfg = hydra.compose("config", [*overrides, f"name={name}", f"run_dir={own}"])
    (own / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, own / ".hydra" / "config.yaml", resolve=True)
    OmegaConf.save(overrides, own / ".hydra" / "overrides.yaml")
    gc.collect()  # the model before this one
    with (own / "report.txt").open("w", encoding="utf-8") as report, redirect_stdout(report):
        score = train(resolve_config(cfg), callbacks=[Pruning(trial, cfg.monitor)])
    if score is None:
        raise UserError(f"the trial ended without {cfg.monitor}")
    return score


def is_own(override: str) -> bool:
    """Tell whether an override is of the search, and not of training."""
    return re.split(r"[.@=]", key_of(override))[0] in OWN


def summary(study: Study, fixed: Sequence[str]) -> str:
    """Return the trials that count as a table, best first, and the best as a command."""
    from captioning.sweeps.study import finished

    best_first = sorted(
        (one for one in finished(study) if one.value is not None),
        key=lambda one: one.value,
        reverse=study.direction.name == "MAXIMIZE",
    )
    if not best_first:
        return "no trial has finished yet; the same command goes on"
    keys = list(best_first[0].params)
    lines = ["| " + " | ".join(["trial", "state", "score", "epochs", "minutes", *keys]) + " |"]
    lines.append("|" + "---|" * (5 + len(keys)))
    complete = [one for one in best_first if one.state.name == "COMPLETE"]
    for one in [*complete, *(one for one in best_first if one not in complete)]:
        values = [one.params.get(key) for key in keys]
        values = [f"{one:.4g}" if isinstance(one, float) else str(one) for one in values]
        minutes = f"{one.duration.total_seconds() / 60:.1f}"
        row = [str(one.number), one.state.name.lower(), f"{one.value:.4f}"]
        row += [str(len(one.intermediate_values)), minutes, *values]
        lines.append("| " + " | ".join(row) + " |")
    if complete:
        found = written(complete[0].params)
        command = shlex.join(["python", "-m", "captioning.train", *fixed, *found])
        lines += ["", f"the best, trial {complete[0].number}:", f"  {command}"]
    return "\n".join(lines)


def written(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as command-line overrides, to the last digit."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    ]


if __name__ == "__main__":
    sys.argv[1:] = hydra_arguments(sys.argv[1:], "tune")
    main()
