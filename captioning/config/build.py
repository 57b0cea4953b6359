"""From a config to objects: every `instantiate` of the project, and the checks before it.

Only the verbs and this file see a config; classes take plain arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from captioning import UserError
from captioning.config.schema import check, check_value, locate, missing_extra_error
from captioning.config.trust import sentence
from captioning.features.datamodule import CaptionDataModule
from captioning.models.decoder import Decoder


def build(node: DictConfig | Mapping[str, Any], **arguments: Any) -> Any:
    """Make the object that a config node names by `_target_`, from plain arguments only.

    Raises UserError, before anything is made, for a name or a value that cannot be (targets.py);
    where a constructor does; and where an optional package is not installed.
    """
    where = str(node._get_full_key(None)) if isinstance(node, DictConfig) else ""
    if isinstance(node, DictConfig):
        node = resolve_config(node)
    check(node, where, {key: one for key, one in arguments.items() if key[0] != "_"})
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, UserError | ModuleNotFoundError):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if cause:
            raise missing_extra_error(node["_target_"], cause) from None
        if isinstance(error.__cause__, TypeError | ValueError | MisconfigurationException):
            why = str(error.__cause__).splitlines()[0]
            raise UserError(f"{where or node['_target_']} cannot be made: {why}") from error
        raise


def check_config(config: Mapping[str, Any]) -> None:
    """Check all that a training makes of its config, before any of it is made.

    Raises UserError for the first key whose name or value cannot be.
    """
    kinds = {"seed": int, "monitor": str, "trainer": dict}
    kinds |= {"run_dir": str, "ckpt_path": str | None}
    for key, hint in kinds.items():
        check_value(key, config.get(key), hint)
    groups = ("data", "encoder", "model", "datamodule", "training")
    nodes = {group: config.get(group) for group in groups}
    for group in ("callbacks", "logger"):
        many = config.get(group) or {}
        nodes |= {f"{group}.{name}": node for name, node in many.items() if node}
    for where, node in nodes.items():
        check(node, where)
    locate(config["model"]["_target_"], "models")


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
    """Make a decoder from a checkpoint's config or the user's; raise UserError if it is none."""
    sizes = {"vocabulary_size": vocabulary_size, "feature_dim": feature_dim}
    decoder = build_stored(model, "models", **sizes)
    if not isinstance(decoder, Decoder):
        raise UserError(f"{model['_target_']} is not a decoder: see captioning/models/decoder.py")
    output = getattr(decoder, "output", None)
    if not isinstance(output, nn.Linear) or output.bias is None:
        raise UserError(
            f"{model['_target_']} needs a layer `output` that is an nn.Linear with a bias, as the "
            "loss takes its weight and bias: see captioning/models/decoder.py"
        )
    return decoder


def build_stored(node: Mapping[str, Any], stage: str, **arguments: Any) -> Any:
    """Make what a checkpoint names, which may be a stranger's: a class of that stage only.

    Nothing inside the node is made, whatever it names. Raises UserError for anything else.
    """
    locate(node.get("_target_"), stage)
    return build(node, _recursive_=False, **arguments)


def check_weights(
    model: Mapping[str, Any],
    vocabulary_size: int,
    feature_dim: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise ValueError unless a stored config makes a decoder of just those weights.

    The model is made without memory, and no number in the config may be larger than what the
    weights have room for: a stranger's would fill this machine.
    """
    room = max((size for shape in shapes.values() for size in shape), default=0)
    for key, value in {**model, "feature_dim": feature_dim}.items():
        if isinstance(value, int) and not 0 <= value <= room:
            raise ValueError(f"{key}={value} is more than its weights have")
    with torch.device("meta"):
        decoder = build_decoder(model, vocabulary_size, feature_dim)
    wanted = {key: tuple(value.shape) for key, value in decoder.state_dict().items()}
    if differ := sorted(set(wanted.items()) ^ set(shapes.items())):
        raise ValueError(f"{differ[0][0]} is not of the size that its config says")


def resolve_config(cfg: DictConfig) -> dict[Any, Any]:
    """Return the resolved config as plain Python types, as checkpoints hold it."""
    try:
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            key = cfg._get_full_key(missing[0])
            raise UserError(f"{key} is missing; type {key}=…")
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(sentence(error)) from None
