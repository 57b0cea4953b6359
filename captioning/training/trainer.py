"""Build Lightning's Trainer and its callbacks from a config, after checking that they can work."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from captioning import UserError
from captioning.config.build import build
from captioning.config.schema import check_value, locate
from captioning.data.progress import progress_bar, shows_bars
from captioning.training.best_checkpoint import AtomicCheckpointIO
from captioning.training.validation import ValidationCaptions


class LogProgress(pl.Callback):
    """What stands in for Lightning's bar where the output is a file; RunFolder logs each epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin to count batches."""
        total, label = trainer.num_training_batches, f"batches of epoch {trainer.current_epoch}"
        hidden = not trainer.is_global_zero
        self._bar = progress_bar(total=total, desc=label, leave=False, disable=hidden)

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Count to this batch."""
        self._bar.update(arguments[-1] + 1 - self._bar.n)


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
    monitor = config["monitor"]
    if monitor not in logged:
        raise UserError(f"nothing logs monitor={monitor}; it can be one of {', '.join(logged)}")
    return callbacks


def build_trainer(config: Mapping[str, Any], more: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Build Lightning's Trainer from `config["trainer"]`, the config's callbacks and `more`."""
    options = config["trainer"] | devices(config["trainer"])
    del options["gpus"]
    callbacks = [*build_callbacks(config), *more]
    loggers = [build(node) for node in (config.get("logger") or {}).values() if node]
    if not loggers and any(isinstance(each, LearningRateMonitor) for each in callbacks):
        raise UserError("callbacks.learning_rate needs a logger; type callbacks.learning_rate=null")
    # Otherwise Lightning would add its own in place of one that was dropped.
    for key, kind in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar)):
        options.setdefault(key, any(isinstance(each, kind) for each in callbacks))
    try:
        return pl.Trainer(
            **options,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=config["run_dir"],
            plugins=[AtomicCheckpointIO()],
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"the trainer cannot be made: {str(error).splitlines()[0]}") from error


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
