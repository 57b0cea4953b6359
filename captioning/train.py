"""Train a captioner: `python -m captioning.train model=lstm trainer.gpus=1`.

A config enters; a run folder with best.ckpt, last.ckpt, metrics, curves and gallery leaves.
Nothing heavy is imported before the config is known to be sound.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

if TYPE_CHECKING:
    from pytorch_lightning import Callback, Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Beside the package in a checkout, inside it in a wheel.
CONF = next(
    folder
    for folder in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf")
    if folder.is_dir()
)

# What Lightning 2 dropped, and what to type today.
DROPPED = {
    "progress_bar_refresh_rate": "callbacks.progress.refresh_rate",
    "checkpoint_callback": "trainer.enable_checkpointing",
    "weights_summary": "trainer.enable_model_summary",
    "resume_from_checkpoint": "ckpt_path",
    "distributed_backend": "trainer.strategy",
    "accelerator_backend": "trainer.accelerator",
    "num_processes": "trainer.devices",
    "tpu_cores": "trainer.accelerator=tpu trainer.devices",
    "auto_select_gpus": "trainer.devices=auto",
    "flush_logs_every_n_steps": "trainer.log_every_n_steps",
    "terminate_on_nan": "trainer.detect_anomaly",
    "max_nb_epochs": "trainer.max_epochs",
    "nb_gpu_nodes": "trainer.num_nodes",
    "auto_lr_find": "training.learning_rate",
    "auto_scale_batch_size": "datamodule.batch_size",
}


# What Hydra has not itself: the plugin and the extra of each launcher.
LAUNCHERS = {
    "joblib": ("joblib", "joblib"),
    "ray": ("ray", "ray"),
    "submitit_slurm": ("submitit", "slurm"),
    "submitit_local": ("submitit", "slurm"),
}


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run one training; returns the best value of `monitor`, for sweeps."""
    return told(train, cfg)


def told(verb: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Run a verb; what the user can put right becomes a sentence and exit code 1."""
    from captioning.data.records import UserError

    try:
        return verb(cfg)
    except UserError as error:
        # In a sweep Hydra notes the failure and goes on with the next job.
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(f"error: {error}")


def train(cfg: DictConfig, callbacks: Sequence[Callback] = ()) -> float | None:
    """Check everything, encode what is not encoded yet, fit, print what came of it."""
    import warnings

    launcher = HydraConfig.get().launcher
    if HydraConfig.get().mode == RunMode.MULTIRUN and "n_jobs" in launcher:
        from captioning.slots import take_slot

        take_slot(launcher.n_jobs, str(os.getppid()))
    import pytorch_lightning as pl
    import torch

    from captioning.build import (
        build,
        build_data,
        build_decoder,
        build_trainer,
        plain,
    )
    from captioning.captioner import read_checkpoint

    # Lightning's advice that does not apply: batches are gathered, not loaded; the run's folder
    # is meant to hold everything. The last is its own use of a torch function that has moved.
    for told in (
        "The '.*dataloader' does not have many workers",
        "The number of training batches .* is smaller than the logging interval",
        ".*exists and is not empty",
        ".*LeafSpec",
        # Scores of captions are gathered before they are logged, equal on every process.
        "It is recommended to use .*sync_dist=True",
    ):
        warnings.filterwarnings("ignore", told)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.ckpt_path:
        read_checkpoint(cfg.ckpt_path)
    trainer = build_trainer(cfg, callbacks)
    check_processes(trainer, in_search=bool(callbacks))
    data = build_data(cfg, device=trainer.strategy.root_device.type)
    data.prepare_data()

    decoder = build_decoder(plain(cfg.model), len(data.vocabulary), data.feature_dim)
    contents = {
        "vocabulary": data.vocabulary.words,
        "encoder": data.encoder.identity,
        "config": plain(cfg),
    }
    module = build(cfg.training, _partial_=True)(decoder=decoder, contents=contents)
    log.info("training on %s; the run's folder is %s", trainer.strategy.root_device, cfg.run_dir)
    trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path)
    best = next((one for one in trainer.checkpoint_callbacks if one.monitor == cfg.monitor), None)
    if best is None or trainer.interrupted:
        return None
    # The gallery and what is printed are of best.ckpt; metrics.csv ends with the last epoch.
    trainer.loggers = []
    trainer.validate(module, data, ckpt_path=best.best_model_path, verbose=False)
    report(trainer, best)
    return float(best.best_model_score)


def report(trainer: Trainer, best: ModelCheckpoint) -> None:
    """Print the scores, some captions with their pictures, and where everything is."""
    from captioning.callbacks.captions import ValidationCaptions

    generated = ValidationCaptions.of(trainer)  # by all processes together
    if not trainer.is_global_zero:
        return
    scores = {key: float(value) for key, value in trainer.callback_metrics.items()}
    print(f"\nscores of {best.best_model_path} on the validation split:")
    for key in sorted(key for key in scores if key.startswith("val/")):
        print(f"  {key.removeprefix('val/'):30} {scores[key]:.4f}")
    print("\ncaptions:")
    for one in generated[:: max(1, len(generated) // 5)][:5]:
        print(f"  {one.record.path}\n    {one.caption}")
    print(f"\ncheckpoint: {best.best_model_path}")
    print(f"gallery:    {Path(best.dirpath) / 'gallery.html'}")


def check_processes(trainer: Trainer, in_search: bool = False) -> None:
    """Refuse several processes where they could not share one run folder; hush all but one."""
    from captioning.data.records import UserError

    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size == 1 or environment is None:
        return
    started_by_us = not environment.creates_processes_externally
    if in_search or (started_by_us and HydraConfig.get().mode == RunMode.MULTIRUN):
        # Lightning would start the whole command again for each process: a sweep in the sweep.
        raise UserError(
            f"a job of a sweep or a search cannot start {trainer.world_size} processes; type "
            "trainer.devices=1 (several jobs at once: launcher=joblib, or more workers of a "
            "search), leave out -m, or let SLURM start a job's processes "
            "(launcher=submitit_slurm hydra.launcher.tasks_per_node=N)"
        )
    named = any(one.startswith("hydra.run.dir=") for one in HydraConfig.get().overrides.hydra)
    if not started_by_us and HydraConfig.get().mode == RunMode.RUN and not named:
        raise UserError(
            "each process would name its run folder after its own clock; name one for all of them: "
            "hydra.run.dir=outputs/runs/NAME"
        )
    if not trainer.is_global_zero:
        logging.getLogger("captioning").setLevel(logging.WARNING)


def check_flags(arguments: list[str]) -> None:
    """Stop at a flag that Lightning 2 dropped, with its new name, before anything is imported.

    And at a launcher whose plugin is not installed, with the extra that has it.
    """
    for argument in arguments:
        launcher = LAUNCHERS.get(re.sub("^(hydra/)?launcher=", "", argument))
        if launcher and not find_spec(f"hydra_plugins.hydra_{launcher[0]}_launcher"):
            sys.exit(f"error: {argument}: type pip install 'captioning[{launcher[1]}]' first")
        # joblib's own number is a job a core, each with all GPUs in sight.
        if launcher == LAUNCHERS["joblib"] and "hydra.launcher.n_jobs" not in " ".join(arguments):
            sys.exit(f"error: {argument}: say how many jobs at once with hydra.launcher.n_jobs=N")
        key = re.match(r"\+*trainer\.(\w+)=", argument)
        if key and key[1] in DROPPED:
            sys.exit(f"error: {argument}: Lightning 2 dropped it; type {DROPPED[key[1]]}=… instead")


if __name__ == "__main__":
    check_flags(sys.argv[1:])
    main()
