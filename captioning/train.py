"""Train a captioner: `python -m captioning.train model=lstm trainer.gpus=1`.

A config enters; a run folder with best.ckpt, last.ckpt, metrics, curves and gallery leaves.
Nothing heavy is imported before the config is known to be sound.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from captioning import UserError
from captioning.config.cli import check_flags, disk_errors, quoted, run_verb
from captioning.config.compose import CONF, checked_configs, differences
from captioning.config.trust import check_places
from captioning.training.folder_lock import claim_folder, last_checkpoint

if TYPE_CHECKING:
    from pytorch_lightning import Callback, Trainer

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run one training, or one job of a sweep; returns the best value of `monitor`."""
    try:
        return train_job(cfg) if in_sweep() else run_verb(train, cfg)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on", file=sys.stderr)
        sys.exit(130)


def in_sweep() -> bool:
    """Say whether this is a job of a multirun."""
    hydra = HydraConfig.get()
    return hydra.mode == RunMode.MULTIRUN or not OmegaConf.is_missing(hydra.job, "num")


def train_job(cfg: DictConfig) -> float | None:
    """Train in the job's folder, or go on there; bring the sweep's summary up to date."""
    from captioning.sweeps.jobs import attempt
    from captioning.sweeps.summary import write_summary

    hydra = HydraConfig.get()
    try:
        # Unresolved, it does not depend on where the folder and the data are.
        config = OmegaConf.to_container(cfg)
        return attempt(
            Path(hydra.runtime.output_dir), config, lambda last: train(cfg, ckpt_path=last)
        )
    finally:
        write_summary(Path(hydra.sweep.dir))


def train(
    cfg: DictConfig, callbacks: Sequence[Callback] = (), ckpt_path: str | None = None
) -> float | None:
    """Check everything, encode what is not encoded yet, fit, print what came of it.

    It goes on from `ckpt_path`, or from the config's. `callbacks` are more than the config's: a
    search watches its trial.
    """
    launcher = HydraConfig.get().launcher
    if HydraConfig.get().mode == RunMode.MULTIRUN and "n_jobs" in launcher:
        from captioning.sweeps.gpu_slots import take_slot

        take_slot(launcher.n_jobs, str(os.getppid()))
    from captioning.config.build import check_config, resolve_config
    from captioning.training.fit import command

    config = resolve_config(cfg)  # which is what is said, whatever it was put together from
    check_config(config)
    check_places(config)
    if in_sweep() and not (config.get("callbacks") or {}).get("run_folder"):
        raise UserError("a sweep needs callbacks.run_folder, whose run.json its table is of")
    folder = Path(cfg.run_dir)
    if not ckpt_path:
        ckpt_path = last_checkpoint(folder) if cfg.ckpt_path == "last" else cfg.ckpt_path
    go_on = "the same command" if callbacks or in_sweep() else command()
    # A sweep holds the folders of its jobs, and knows what is in them.
    claim = nullcontext() if in_sweep() else claim_folder(folder, cfg.ckpt_path)
    with disk_errors(go_on), claim:
        return _train(cfg, config, callbacks, ckpt_path, go_on)


def _train(
    cfg: DictConfig,
    config: dict[str, Any],
    callbacks: Sequence[Callback],
    ckpt_path: str | None,
    go_on: str,
) -> float | None:
    import pytorch_lightning as pl
    import torch

    from captioning.captioner import read_checkpoint
    from captioning.config.build import build, build_data, build_decoder
    from captioning.training.best_checkpoint import BestCheckpoint
    from captioning.training.checkpoint_io import keep_metrics
    from captioning.training.fit import (
        default_callbacks,
        filter_lightning_warnings,
        fit,
        is_over,
        report,
    )
    from captioning.training.trainer import build_trainer

    filter_lightning_warnings()
    torch.set_float32_matmul_precision("high")
    checkpoint = read_checkpoint(ckpt_path) if ckpt_path else {}
    trainer = build_trainer(cfg, [*callbacks, *default_callbacks(cfg.run_dir)])
    if ckpt_path and ckpt_path == cfg.ckpt_path and is_over(checkpoint, trainer.max_epochs):
        done = checkpoint["epoch"] + 1
        raise UserError(
            f"{ckpt_path} has had {done} epochs; type trainer.max_epochs={2 * done} to train it "
            "for longer"
        )
    check_processes(trainer, in_search=bool(callbacks))
    data = build_data(cfg, device=str(trainer.strategy.root_device))
    if checkpoint:
        check_same(ckpt_path, "encoder", checkpoint["captioning"]["encoder"], data.encoder.identity)
    # A decoder that cannot be, or that these features are not for, says so before they are made.
    shape = data.encoder.feature_shape
    build_decoder(config["model"], 8, shape[-1]).eval().begin(torch.zeros(1, *shape))
    data.prepare_data()

    # Here, so that neither imports nor the text encoder nor the store's state move what follows.
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    decoder = build_decoder(config["model"], len(data.vocabulary), data.feature_dim)
    if checkpoint and shapes(checkpoint["state_dict"]) != shapes(decoder.state_dict(), "decoder."):
        check_same(ckpt_path, "model", checkpoint["captioning"]["config"]["model"], config["model"])
    contents = {
        "vocabulary": data.vocabulary.words,
        "encoder": data.encoder.identity,
        "config": config,
    }
    module = build(cfg.training, _partial_=True)(decoder=decoder, contents=contents)
    log.info("training on %s; the run's folder is %s", trainer.strategy.root_device, cfg.run_dir)
    keep_metrics(trainer.loggers, checkpoint, ckpt_path)
    fit(trainer, module, data, ckpt_path, go_on)
    if trainer.interrupted:
        return None
    # The gallery and what is printed are of best.ckpt; metrics.csv ends with the last epoch.
    trainer.loggers = []
    kept, metrics = BestCheckpoint.of(trainer), dict(trainer.callback_metrics)
    best = (kept and kept.best_model_path) or None
    trainer.validate(module, data, ckpt_path=best, verbose=False, weights_only=True)
    report(trainer, best)
    score = kept.best_score if best else (metrics | trainer.callback_metrics).get(cfg.monitor)
    return None if score is None else float(score)


def check_same(path: str, key: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise UserError where a checkpoint was trained with another encoder or model."""
    if changed := differences(theirs, ours, f"{key}."):
        raise UserError(
            f"{path} was trained with another {key} ({'; '.join(changed)}); type its settings to "
            "go on, or leave out ckpt_path= to train from the start"
        )


def shapes(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the shape of each tensor by name."""
    return {f"{prefix}{key}": value.shape for key, value in state_dict.items()}


def check_processes(trainer: Trainer, in_search: bool = False) -> None:
    """Refuse several processes where they could not share one run folder; hush all but one."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size == 1 or environment is None:
        return
    started_by_us = not environment.creates_processes_externally
    if in_search or (started_by_us and in_sweep()):
        # Lightning would start the whole command again for each process: a sweep in the sweep.
        raise UserError(
            f"a job of a sweep or a search cannot start {trainer.world_size} processes; type "
            "trainer.devices=1 (several jobs at once: launcher=joblib, or more workers of a "
            "search), leave out -m, or let SLURM start a job's processes "
            "(launcher=submitit_slurm hydra.launcher.tasks_per_node=N)"
        )
    overrides = HydraConfig.get().overrides.hydra if not (started_by_us or in_sweep()) else None
    if overrides is not None and not any(one.startswith("hydra.run.dir=") for one in overrides):
        raise UserError(
            "each process would name its run folder after its own clock; name one for all of them: "
            "hydra.run.dir=outputs/runs/NAME"
        )
    if not trainer.is_global_zero:
        logging.getLogger("captioning").setLevel(logging.WARNING)


if __name__ == "__main__":
    check_flags(sys.argv[1:])
    sys.argv[1:] = map(quoted, sys.argv[1:])
    main()
