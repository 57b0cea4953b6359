"""Train by a config: check everything, encode what is not encoded yet, fit, score the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig

from captioning import UserError
from captioning.checkpoint import read_checkpoint
from captioning.config.build import build, build_data, build_decoder
from captioning.config.cli import disk_errors
from captioning.config.compose import is_sweep_job
from captioning.config.schema import check_config
from captioning.config.trust import check_write_paths
from captioning.training.best_checkpoint import BestCheckpoint
from captioning.training.fit import (
    build_resume_command,
    default_callbacks,
    filter_lightning_warnings,
    fit,
    report,
)
from captioning.training.folder_lock import claim_folder, last_checkpoint
from captioning.training.init_weights import (
    check_fits,
    init_weights,
    log_known_words,
    read_init,
)
from captioning.training.resume import check_same, check_unfinished, keep_metrics
from captioning.training.trainer import build_trainer, configure_torch
from captioning.training.validation import find_callback

log = logging.getLogger(__name__)


def train(
    config: dict[str, Any], callbacks: Sequence[pl.Callback] = (), ckpt_path: str | None = None
) -> float | None:
    """Train by a resolved config; return the best value of `monitor`, None if it was not logged.

    It goes on from `ckpt_path`, or from the config's. `callbacks` are more than the config's, such
    as those of an Optuna trial. Raises UserError, before anything is encoded, for what cannot work.
    """
    check_config(config)
    check_write_paths(config)
    if is_sweep_job() and not (config.get("callbacks") or {}).get("run_folder"):
        raise UserError(
            "a sweep needs callbacks.run_folder, as its table is made from each run.json"
        )
    folder, configured = Path(config["run_dir"]), config["ckpt_path"]
    if is_sweep_job() and configured:
        raise UserError("the jobs of a sweep begin at the start: leave out ckpt_path=")
    if not ckpt_path:
        ckpt_path = last_checkpoint(folder) if configured == "last" else configured
        if configured and not ckpt_path:
            log.info("no last.ckpt in %s yet: training starts from scratch", folder)
    is_job = callbacks or is_sweep_job()
    resume_command = (lambda: "the same command") if is_job else build_resume_command
    # The jobs of a sweep lock their folders themselves (sweeps/jobs.py).
    lock = nullcontext() if is_sweep_job() else claim_folder(folder, configured)
    with disk_errors(resume_command), lock:
        return _train(config, callbacks, ckpt_path, resume_command)


def _train(
    config: dict[str, Any],
    callbacks: Sequence[pl.Callback],
    ckpt_path: str | None,
    resume_command: Callable[[], str],
) -> float | None:
    filter_lightning_warnings()
    configure_torch()
    checkpoint = read_checkpoint(ckpt_path) if ckpt_path else {}
    # A run that goes on has its weights already.
    captioner = read_init(config) if config.get("init") and not checkpoint else {}
    trainer = build_trainer(config, [*callbacks, *default_callbacks(config["run_dir"])])
    if checkpoint:
        check_unfinished(ckpt_path, checkpoint, trainer, ckpt_path != config["ckpt_path"])
        root = Path(str(config["data"].get("root"))).expanduser()
        if "layout" in config["data"] and not root.exists():  # what is drawn has none
            raise UserError(
                f"the data of {ckpt_path}, {root}, are not there; type data.root=FOLDER"
            )
    check_processes(trainer, in_trial=bool(callbacks))
    data = build_data(config, device=str(trainer.strategy.root_device))
    data.shuffle = not config["trainer"].get("overfit_batches")
    shape = data.encoder.feature_shape
    stored = checkpoint or captioner
    vocabulary = stored["captioning"]["vocabulary"] if stored else range(8)
    decoder = build_decoder(config["model"], len(vocabulary), shape[-1])
    if checkpoint:
        check_same(ckpt_path, checkpoint, config, data, decoder)
    if captioner:
        check_fits(captioner, config, data.encoder.identity, decoder)
    # Fail before encoding if the decoder does not fit these features.
    decoder.eval().begin(torch.zeros(1, *shape))
    data.prepare_data()

    # Seeded here, as imports, the text encoder and encoding draw random numbers, too.
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    decoder = build_decoder(config["model"], len(data.vocabulary), shape[-1])
    if captioner:
        known = init_weights(decoder, data.vocabulary, captioner)
        log_known_words(config["init"], known, data.vocabulary)
    contents = {
        "vocabulary": data.vocabulary.words,
        "encoder": data.encoder.identity,
        "config": config,
    }
    make_module = build(config["training"], "training", _partial_=True)
    module = make_module(decoder=decoder, contents=contents)
    log.info("training on %s in %s", trainer.strategy.root_device, config["run_dir"])
    keep_metrics(trainer.loggers, checkpoint, ckpt_path)
    fit(trainer, module, data, ckpt_path, resume_command)
    # The gallery and what is printed are of best.ckpt; metrics.csv ends with the last epoch.
    trainer.loggers = []
    saved, metrics = find_callback(trainer, BestCheckpoint), dict(trainer.callback_metrics)
    best = (saved and saved.best_model_path) or None
    if not (best and saved.is_of_last_validation):  # else all that is written is of best.ckpt
        trainer.validate(module, data, ckpt_path=best, verbose=False, weights_only=True)
    report(trainer, best)
    metrics |= trainer.callback_metrics
    score = saved.best_score if best else metrics.get(config["monitor"])
    return None if score is None else float(score)


def check_processes(trainer: pl.Trainer, in_trial: bool = False) -> None:
    """Refuse several processes where they could not share one run folder; one of them logs."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size == 1 or environment is None:
        return
    is_launcher = not environment.creates_processes_externally
    if in_trial or (is_launcher and is_sweep_job()):
        # Lightning would start the whole command again for each process: a sweep in the sweep.
        raise UserError(
            f"a job of a sweep or a search cannot start {trainer.world_size} processes; type "
            "trainer.devices=1 (several jobs at once: launcher=joblib, or more workers of a "
            "search), leave out -m, or let SLURM start a job's processes "
            "(launcher=submitit_slurm hydra.launcher.tasks_per_node=N)"
        )
    if not is_launcher and not is_sweep_job():
        overrides = HydraConfig.get().overrides.hydra
        if not any(override.startswith("hydra.run.dir=") for override in overrides):
            raise UserError(
                "the processes would make run folders of different times; name one for all of "
                "them: hydra.run.dir=outputs/runs/NAME"
            )
    if not trainer.is_global_zero:
        logging.getLogger("captioning").setLevel(logging.WARNING)
