"""Train a captioner: `python -m captioning.train model=lstm trainer.gpus=1`.

A config enters; a run folder with best.ckpt, last.ckpt, metrics, curves and gallery leaves.
Nothing heavy is imported before the config is known to be sound.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from captioning.data.records import UserError

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
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


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run one training, or one job of a sweep; returns the best value of `monitor`."""
    return train_job(cfg) if in_sweep() else told(train, cfg)


def in_sweep() -> bool:
    """Say whether this is a job of a multirun."""
    return not OmegaConf.is_missing(HydraConfig.get().job, "num")


def train_job(cfg: DictConfig) -> float | None:
    """Train in the job's folder, or go on there; bring the sweep's summary up to date."""
    from captioning.sweeps.jobs import attempt
    from captioning.sweeps.summary import write_summary

    hydra = HydraConfig.get()
    try:
        # Unresolved, it does not depend on where the folder and the data are.
        config = OmegaConf.to_container(cfg)
        return attempt(Path(hydra.runtime.output_dir), config, partial(train, cfg))
    finally:
        write_summary(Path(hydra.sweep.dir))


def told(verb: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Run a verb; what the user can put right becomes a sentence and exit code 1."""
    try:
        return verb(cfg)
    except UserError as error:
        # In a sweep Hydra notes the failure and goes on with the next job.
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(f"error: {error}")


def train(cfg: DictConfig, ckpt_path: str | None = None) -> float | None:
    """Check everything, encode what is not encoded yet, fit, print what came of it.

    It goes on from `ckpt_path`, or from the config's.
    """
    import warnings

    import pytorch_lightning as pl
    import torch

    from captioning.build import (
        build,
        build_data,
        build_decoder,
        build_trainer,
        plain,
    )
    from captioning.callbacks.exact_resume import keep_metrics
    from captioning.captioner import read_checkpoint

    # Lightning's advice that does not apply: batches are gathered, not loaded; the run's folder
    # is meant to hold everything. The last is its own use of a torch function that has moved.
    for told in (
        "The '.*dataloader' does not have many workers",
        "The number of training batches .* is smaller than the logging interval",
        ".*exists and is not empty",
        ".*LeafSpec",
    ):
        warnings.filterwarnings("ignore", told)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    ckpt_path = ckpt_path or cfg.ckpt_path
    step = read_checkpoint(ckpt_path)["global_step"] if ckpt_path else 0
    trainer = build_trainer(cfg)
    check_processes(trainer)
    data = build_data(cfg, device=trainer.strategy.root_device.type)
    data.prepare_data()

    # Here, so that neither imports nor the text encoder nor the store's state move what follows.
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    decoder = build_decoder(plain(cfg.model), len(data.vocabulary), data.feature_dim)
    contents = {
        "vocabulary": data.vocabulary.words,
        "encoder": data.encoder.identity,
        "config": plain(cfg),
    }
    module = build(cfg.training, _partial_=True)(decoder=decoder, contents=contents)
    log.info("training on %s; the run's folder is %s", trainer.strategy.root_device, cfg.run_dir)
    keep_metrics(trainer.loggers, step)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    best = next((one for one in trainer.checkpoint_callbacks if one.monitor == cfg.monitor), None)
    if best is None or trainer.interrupted:
        return None
    # The gallery and what is printed are of best.ckpt; metrics.csv ends with the last epoch.
    trainer.loggers = []
    trainer.validate(module, data, ckpt_path=best.best_model_path, verbose=False)
    if trainer.is_global_zero:
        report(trainer, best)
    return float(best.best_model_score)


def check_processes(trainer: Trainer) -> None:
    """Refuse several processes in a sweep: Lightning starts them with the sweep's whole command.

    Each would run all jobs again, in its own order. Raises UserError with the ways out.
    """
    from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

    if in_sweep() and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        raise UserError(
            f"a job of a sweep cannot start {trainer.world_size} processes, each of which would "
            "run the whole sweep: type trainer.gpus=1 (hydra/launcher=joblib gives each job a GPU "
            "of its own), or ++trainer.strategy=ddp_spawn, or train one by one without -m"
        )


def report(trainer: Trainer, best: ModelCheckpoint) -> None:
    """Print the scores, some captions with their pictures, and where everything is."""
    from captioning.callbacks.captions import ValidationCaptions

    scores = {key: float(value) for key, value in trainer.callback_metrics.items()}
    print(f"\nscores of {best.best_model_path} on the validation split:")
    for key in sorted(key for key in scores if key.startswith("val/")):
        print(f"  {key.removeprefix('val/'):30} {scores[key]:.4f}")
    generated = ValidationCaptions.of(trainer)
    print("\ncaptions:")
    for one in generated[:: max(1, len(generated) // 5)][:5]:
        print(f"  {one.record.path}\n    {one.caption}")
    print(f"\ncheckpoint: {best.best_model_path}")
    print(f"gallery:    {Path(best.dirpath) / 'gallery.html'}")


def check_flags(arguments: list[str]) -> None:
    """Stop at a flag that Lightning 2 dropped, with its new name, before anything is imported."""
    for argument in arguments:
        key = re.match(r"\+*trainer\.(\w+)=", argument)
        if key and key[1] in DROPPED:
            sys.exit(f"error: {argument}: Lightning 2 dropped it; type {DROPPED[key[1]]}=… instead")


def quoted(argument: str) -> str:
    """Return ckpt=PATH so that Hydra takes it as one text: a sweep's folders have = and commas."""
    key, _, path = argument.partition("=")
    if key not in ("ckpt", "ckpt_path") or not Path(path).exists():
        return argument
    return f"{key}='" + path.replace("'", r"\'") + "'"


if __name__ == "__main__":
    check_flags(sys.argv[1:])
    sys.argv[1:] = map(quoted, sys.argv[1:])
    main()
