"""Build Lightning's Trainer and its callbacks from a config, after checking that they can work."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from captioning import UserError
from captioning.config.build import build
from captioning.config.schema import check_value, locate
from captioning.training.checkpoint_io import WholeCheckpoints
from captioning.training.validation import ValidationCaptions


def build_callbacks(config: Mapping[str, Any]) -> list[pl.Callback]:
    """Make the callbacks.

    Raises UserError where none of them logs what `cfg.monitor` names, and where one needs another
    that was dropped.
    """
    nodes = (config.get("callbacks") or {}).items()
    named = {name: build(node, f"callbacks.{name}") for name, node in nodes if node}
    callbacks = list(named.values())
    if not any(isinstance(each, ValidationCaptions) for each in callbacks):
        for name, each in named.items():
            if getattr(each, "needs_captions", False):
                raise UserError(
                    f"callbacks.{name} needs callbacks.captions; type callbacks.{name}=null, too, "
                    "or leave callbacks.captions in"
                )
    known = ["val/loss"]
    if "risk_epochs" not in config["training"]:  # whose epochs log a reward in its place
        known.append("train/loss")
    known += [f"val/{key}" for each in callbacks for key in getattr(each, "keys", ())]
    if not hasattr(locate(config["data"]["_target_"]), "is_true"):
        known = [key for key in known if key != "val/true"]
    monitor = config["monitor"]
    if monitor not in known:
        raise UserError(f"nothing logs monitor={monitor}; it can be one of {', '.join(known)}")
    return callbacks


def build_trainer(config: Mapping[str, Any], more: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Make Lightning's Trainer from `cfg.trainer`, with `gpus` in today's words, and callbacks.

    `more` are callbacks that no config can name.
    """
    options = dict(config["trainer"])
    options |= devices(options)
    del options["gpus"]
    callbacks = [*build_callbacks(config), *more]
    loggers = [build(node) for node in (config.get("logger") or {}).values() if node]
    if not loggers and any(isinstance(each, LearningRateMonitor) for each in callbacks):
        raise UserError("callbacks.learning_rate needs a logger; type callbacks.learning_rate=null")
    # Lightning would put its own in the place of one that was dropped.
    for key, kind in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar)):
        options.setdefault(key, any(isinstance(each, kind) for each in callbacks))
    try:
        return pl.Trainer(
            **options,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=config["run_dir"],
            plugins=[WholeCheckpoints()],
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"the trainer cannot be made: {str(error).splitlines()[0]}") from error


def devices(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Translate `trainer.gpus` to accelerator and devices, and check every key of the trainer.

    Raises UserError for a GPU that is not there: a run never falls back to the CPU in silence.
    """
    known = set(inspect.signature(pl.Trainer).parameters) | {"gpus"}
    hints = get_type_hints(pl.Trainer.__init__)
    for key in trainer:
        if key not in known:
            close = difflib.get_close_matches(str(key), sorted(known), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"the trainer has no key {key}{hint}")
        check_value(f"trainer.{key}", trainer[key], hints.get(key, Any))
    gpus = trainer.get("gpus")
    if gpus is None:
        return {}
    if any(trainer.get(key, "auto") != "auto" for key in ("accelerator", "devices")):
        raise UserError("trainer.gpus says it all: leave out trainer.accelerator, trainer.devices")
    if not isinstance(gpus, int) or gpus < -1:
        raise UserError(f"trainer.gpus={gpus}: it is null, 0, a number of GPUs, or -1 for all")
    if gpus == 0:
        return {"accelerator": "cpu", "devices": 1}
    found = torch.cuda.device_count()
    if found == 0 or gpus > found:
        raise UserError(
            f"trainer.gpus={gpus} asks for {'GPUs' if gpus != 1 else 'a GPU'}, but torch "
            f"{torch.__version__} finds {found} here (does `nvidia-smi` list one?); "
            f"type trainer.gpus={found} to train on {'the CPU' if found == 0 else 'what there is'}"
        )
    return {"accelerator": "gpu", "devices": gpus}
