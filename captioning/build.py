"""From a config to objects: every `instantiate` of the project, and the checks before it.

Only the verbs and this file see a config; classes take plain arguments.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from captioning.callbacks.whole_files import WholeCheckpoints
from captioning.data.records import UserError
from captioning.features.datamodule import CaptionDataModule
from captioning.models.decoder import Decoder


def build(node: DictConfig | Mapping[str, Any], **arguments: Any) -> Any:
    """Make the object that a config node names by `_target_`, from plain arguments only.

    Raises UserError where a constructor does, or where an optional package is not installed.
    """
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, UserError | ModuleNotFoundError):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if cause:
            raise UserError(
                f"{node['_target_']} needs a package that is not installed ({cause}); the extras "
                "are pip install 'captioning[offline,tensorboard,wandb]'"
            ) from None
        raise


def build_data(cfg: DictConfig, device: str) -> CaptionDataModule:
    """Make the data source, the encoder and the LightningDataModule around them."""
    return build(
        cfg.datamodule,
        source=build(cfg.data),
        encoder=build(cfg.encoder),
        device=device,
        seed=cfg.seed,
    )


def build_decoder(model: Mapping[str, Any], vocabulary_size: int, feature_dim: int) -> Decoder:
    """Make a decoder from a checkpoint's config or the user's."""
    sizes = {"vocabulary_size": vocabulary_size, "feature_dim": feature_dim}
    decoder = build_stored(model, "models", **sizes)
    if not isinstance(decoder, Decoder):
        raise UserError(f"{model['_target_']} is not a decoder: see captioning/models/decoder.py")
    return decoder


def build_stored(node: Mapping[str, Any], stage: str, **arguments: Any) -> Any:
    """Make what a checkpoint names, which may be a stranger's: a class of that stage only.

    Nothing inside the node is made, whatever it names. Raises UserError for anything else.
    """
    target = str(node.get("_target_"))
    file = re.fullmatch(rf"(captioning\.{stage}\.\w+)\.\w+", target)
    try:
        made = get_object(target) if file else None
    except ImportError:
        made = None
    if not isinstance(made, type) or made.__module__ != file[1]:
        raise UserError(f"{target} is not a class of captioning.{stage}")
    return build(node, _recursive_=False, **arguments)


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """Make the callbacks; raise UserError where none of them logs what `cfg.monitor` names."""
    callbacks = [build(node) for node in cfg.callbacks.values() if node]
    known = ["train/loss", "val/loss"]
    known += [f"val/{key}" for callback in callbacks for key in getattr(callback, "keys", ())]
    if not hasattr(get_class(cfg.data._target_), "is_true"):
        known = [key for key in known if key != "val/true"]
    if cfg.monitor not in known:
        raise UserError(
            f"nothing logs monitor={cfg.monitor}{_closest(cfg.monitor, known)}; "
            f"it can be one of {', '.join(known)}"
        )
    return callbacks


def build_trainer(cfg: DictConfig, more: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Make Lightning's Trainer from `cfg.trainer`, with `gpus` in today's words, and callbacks.

    `more` are callbacks that no config can name.
    """
    options = plain(cfg.trainer)
    options |= devices(options)
    del options["gpus"]
    callbacks = [*build_callbacks(cfg), *more]
    loggers = [build(node) for node in cfg.logger.values() if node]
    return pl.Trainer(
        **options,
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=cfg.run_dir,
        plugins=[WholeCheckpoints()],
    )


def devices(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Translate `trainer.gpus` to accelerator and devices, and check every key of the trainer.

    Raises UserError for a GPU that is not there: a run never falls back to the CPU in silence.
    """
    known = set(inspect.signature(pl.Trainer).parameters) | {"gpus"}
    for key in trainer:
        if key not in known:
            raise UserError(f"the trainer has no key {key}{_closest(str(key), sorted(known))}")
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


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain Python types, as checkpoints hold it."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def _closest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
