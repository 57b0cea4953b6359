"""Make objects of config nodes: every `instantiate` of the project.

Configs are plain dicts here (compose.py reads them, schema.py checks them); the classes take plain
arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from captioning import UserError
from captioning.config.schema import check_node, locate, missing_extra_error
from captioning.models.decoder import Decoder

if TYPE_CHECKING:  # Lightning takes seconds to import, and captioning needs none of it
    from captioning.features.datamodule import CaptionDataModule


def build(node: Mapping[Any, Any], where: str = "", **arguments: Any) -> Any:
    """Make the object that a plain config node names by `_target_`; `where` names it in errors.

    Raises UserError, before anything is made, for a name or a value that cannot be (schema.py);
    where a constructor does; and where an optional package is not installed.
    """
    check_node(node, where, {key: value for key, value in arguments.items() if key[0] != "_"})
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        from pytorch_lightning.utilities.exceptions import MisconfigurationException

        cause: BaseException | None = error
        while cause and not isinstance(cause, UserError | ModuleNotFoundError):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if cause:
            raise missing_extra_error(node["_target_"], cause) from None
        if isinstance(error.__cause__, TypeError | ValueError | MisconfigurationException):
            reason = str(error.__cause__).splitlines()[0]
            raise UserError(f"{where or node['_target_']} cannot be made: {reason}") from error
        raise


def build_stored(node: Mapping[str, Any], stage: str, **arguments: Any) -> Any:
    """Make what a checkpoint names, which may be a stranger's: a class of `captioning.<stage>`.

    Nothing inside the node is made, whatever it names. Raises UserError for anything else.
    """
    locate(node.get("_target_"), stage)
    return build(node, _recursive_=False, **arguments)


def build_decoder(model: Mapping[str, Any], vocabulary_size: int, feature_dim: int) -> Decoder:
    """Make the decoder of a checkpoint's config or the user's. Raises UserError if it is none."""
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


def build_data(config: Mapping[str, Any], device: str) -> CaptionDataModule:
    """Make the data source, the encoder and the LightningDataModule around them."""
    return build(
        config["datamodule"],
        "datamodule",
        source=build(config["data"], "data"),
        encoder=build(config["encoder"], "encoder"),
        device=device,
        seed=config["seed"],
    )
