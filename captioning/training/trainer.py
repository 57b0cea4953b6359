"""Build Lightning's Trainer and its callbacks from a config, after checking that they can work."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar, Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from captioning import UserError
from captioning.config.build import build
from captioning.config.schema import check_value, locate
from captioning.data.progress import progress_bar, shows_bars
from captioning.training.best_checkpoint import AtomicCheckpointIO
from captioning.training.validation import ValidationCaptions


class LogProgress(pl.Callback):
    """What stands in for Lightning's bar where the output is a file; RunFolder logs each epoch."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin to count the batches of all epochs, after those before a checkpoint."""
        total = (
            trainer.num_training_batches * trainer.max_epochs if trainer.max_epochs > 0 else None
        )
        done, hidden = trainer.fit_loop.total_batch_idx + 1, not trainer.is_global_zero
        options = {"desc": "training, batches", "leave": False, "disable": hidden}
        self._bar = progress_bar(total=total, initial=done, **options)

    def on_train_batch_end(self, *_: Any) -> None:
        """Count this batch."""
        self._bar.update()


def configure_torch() -> None:
    """Choose what makes training fast at no cost: TF32 on a GPU, and memory as it is found.

    Where algorithms are deterministic, torch would fill all memory that it takes, to show who reads
    it unwritten.
    """
    torch.set_float32_matmul_precision("high")
    torch.utils.deterministic.fill_uninitialized_memory = False


def build_callbacks(config: Mapping[str, Any]) -> list[pl.Callback]:
    """Build the callbacks; raises UserError if what they or `monitor` need is missing."""
    nodes = (config.get("callbacks") or {}).items()
    named = {name: build(node, f"callbacks.{name}") for name, node in nodes if node}
    callbacks = list(named.values())
    if not shows_bars(sys.stdout):
        callbacks = [LogProgress() if isinstance(x, ProgressBar) else x for x in callbacks]
    has_captions = any(isinstance(each, ValidationCaptions) for each in callbacks)
    for name, callback in named.items():
        if getattr(callback, "needs_captions", False) and not has_captions:
            raise UserError(
                f"callbacks.{name} needs callbacks.captions; type callbacks.{name}=null, too, or "
                "leave callbacks.captions in"
            )
    logged = ["val/loss"]
    if "risk_epochs" not in config["training"]:  # whose epochs log a reward instead
        logged.append("train/loss")
    logged += [f"val/{key}" for each in callbacks for key in getattr(each, "keys", ())]
    if not hasattr(locate(config["data"]["_target_"]), "is_true"):
        logged = [key for key in logged if key != "val/true"]
    monitor, why = config["monitor"], ""
    if config["trainer"].get("limit_val_batches") == 0:
        logged, why = [key for key in logged if key == "train/loss"], " without validation"
    if monitor not in logged:
        choices = ", ".join(logged) or "none: leave out trainer.limit_val_batches=0"
        raise UserError(f"nothing logs monitor={monitor}{why}; it can be one of {choices}")
    return callbacks


def build_trainer(config: Mapping[str, Any], more: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Build Lightning's Trainer from `config["trainer"]`, the config's callbacks and `more`."""
    check_limits(config)
    options = config["trainer"] | devices(config["trainer"])
    del options["gpus"]
    callbacks = build_callbacks(config)
    if options.pop("overfit_batches", 0):  # Lightning's own would make the loaders again
        batches = config["trainer"]["overfit_batches"]
        options |= {"limit_train_batches": batches, "limit_val_batches": batches}
    loggers = [build(node) for node in (config.get("logger") or {}).values() if node]
    if not loggers and any(isinstance(each, LearningRateMonitor) for each in callbacks):
        raise UserError("callbacks.learning_rate needs a logger; type callbacks.learning_rate=null")
    # Otherwise Lightning would add its own in place of one that was dropped.
    for key, kind in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar)):
        if options.get(key) is False:
            callbacks = [each for each in callbacks if not isinstance(each, kind)]
        options.setdefault(key, any(isinstance(each, kind) for each in callbacks))
    try:
        timer = [Timer(max_time)] if (max_time := options.pop("max_time", None)) else []
        return pl.Trainer(
            **options,
            callbacks=[*timer, *callbacks, *more],  # more looks whether the time is over
            logger=loggers or False,
            default_root_dir=config["run_dir"],
            plugins=[AtomicCheckpointIO()],
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"the trainer cannot be made: {str(error).splitlines()[0]}") from error


def check_limits(config: Mapping[str, Any]) -> None:
    """Raise UserError for options of the trainer with which nothing, or without end, is trained."""
    options = config["trainer"]
    epochs, steps = options.get("max_epochs"), options.get("max_steps")
    if taken := {"callbacks", "logger", "default_root_dir", "plugins"} & options.keys():
        raise UserError(
            f"trainer.{min(taken)} is set by the program: callbacks.NAME=, logger= and "
            "hydra.run.dir= are what to type"
        )
    if epochs == 0 or (epochs in (None, -1) and not steps):
        raise UserError(
            f"trainer.max_epochs={epochs}: it is 1 or more, or -1 with trainer.max_steps=N, as the "
            "learning rate's schedule needs an end; captioning.evaluate ckpt=PATH only scores"
        )
    if "risk_epochs" in config["training"] and (steps or options.get("fast_dev_run")):
        raise UserError(
            "training=risk counts epochs: leave out trainer.max_steps and trainer.fast_dev_run (a "
            "quick trial: trainer=debug trainer.max_epochs=2 training.risk_epochs=1)"
        )


def devices(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Check the types of the trainer's config, and translate `gpus` to accelerator and devices.

    Raises UserError for a GPU that is not there: a run never falls back to the CPU in silence.
    """
    hints = get_type_hints(pl.Trainer.__init__)
    for key, value in trainer.items():
        check_value(f"trainer.{key}", value, hints.get(key, Any))
    gpus = trainer.get("gpus")
    if gpus is None:
        return {}
    if any(trainer.get(key, "auto") != "auto" for key in ("accelerator", "devices")):
        raise UserError(
            "leave out trainer.accelerator and trainer.devices: trainer.gpus replaces them"
        )
    if not isinstance(gpus, int) or gpus < -1:
        raise UserError(f"trainer.gpus={gpus}: it is null, 0, a number of GPUs, or -1 for all")
    if gpus == 0:
        return {"accelerator": "cpu", "devices": 1}
    available = torch.cuda.device_count()
    if available == 0 or gpus > available:
        raise UserError(
            f"trainer.gpus={gpus}, but torch {torch.__version__} finds {available} here (does "
            f"`nvidia-smi` list one?); type trainer.gpus={available} to train with what there is"
        )
    return {"accelerator": "gpu", "devices": gpus}
