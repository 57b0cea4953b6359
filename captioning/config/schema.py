"""Check what a config names and which values it gives, before anything is made of it.

`_target_` can name the classes of a few packages and the searches, nothing else that Python could
import; values must suit the signature of the target and RANGES.
"""

from __future__ import annotations

import difflib
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union

from hydra.utils import get_object

from captioning import UserError
from captioning.config.trust import TRUSTED

CLASS_PACKAGES = (
    "captioning.data",
    "captioning.features",
    "captioning.models",
    "captioning.search",
    "captioning.metrics",
    "captioning.training",
    "captioning.web",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers.CSVLogger",  # others send what they log to where a config says
    "pytorch_lightning.loggers.TensorBoardLogger",
    "pytorch_lightning.loggers.WandbLogger",
    "optuna.samplers",
    "optuna.pruners",
)
FUNCTION_PACKAGES = ("captioning.search", "captioning.metrics.consensus")
METHOD = "hydra.utils.get_method"  # whose `path` is one of FUNCTION_PACKAGES
MOVED = {  # modules of earlier releases
    "captioning.callbacks": "captioning.training",
    "captioning.models.module": "captioning.training.module",
    "captioning.models.risk": "captioning.training.minimum_risk",
}

LIMITS: dict[tuple[float, float], list[str]] = {  # a key means the same wherever it is
    (1, math.inf): [
        *("batch_size", "min_count", "image_size", "images", "samples", "risk_epochs"),
        *("max_steps", "accumulate_grad_batches", "check_val_every_n_epoch"),
    ],
    (1, 1000): ["width", "groups", "max_length"],
    (1, 1 << 16): ["embed_dim", "hidden_dim", "num_layers", "heads"],
    (0, math.inf): ["min_length", "no_repeat_ngram", "weight_decay", "diversity", "sharpness"],
    (0, 2**32 - 1): ["seed", "n_startup_trials", "n_warmup_steps"],
    (1e-12, math.inf): ["learning_rate", "risk_learning_rate", "temperature"],
    (1e-9, math.inf): ["limit_train_batches", "gradient_clip_val", "val_check_interval"],
    (0, 1): ["warmup", "dropout", "label_smoothing"],
    (1e-12, 1): ["top_p"],
    (2, math.inf): ["max_images"],
    (0, 1000): ["likelihood"],
    (1e-2, 1000): ["ridge"],  # less is lost among float32's digits
}
RANGES = {key: limits for limits, keys in LIMITS.items() for key in keys}

TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "a mapping",
}


def check_config(config: Mapping[str, Any]) -> None:
    """Check every node and value that a training is made of, before any of it is made.

    Raises UserError for the first that cannot be.
    """
    hints = {"seed": int, "monitor": str, "trainer": dict, "run_dir": str}
    hints |= {"ckpt_path": str | None, "init": str | None}
    for key, hint in hints.items():
        check_value(key, config.get(key), hint)
    for group in ("data", "encoder", "model", "datamodule", "training"):
        check_node(config.get(group), group)
    for group in ("callbacks", "logger"):
        for name, node in (config.get(group) or {}).items():
            if node:
                check_node(node, f"{group}.{name}")
    locate(config["model"]["_target_"], "models")


def locate(target: object, stage: str | None = None) -> Callable[..., Any]:
    """Import what `target` names: a class of `captioning.<stage>`, or all that a config may name.

    The name must lie in an allowed package before anything is imported, and the module that
    defines the object must, too: captioning.config.build.inspect.os.system fails both. Raises
    UserError for anything else.
    """
    name = str(target)
    package = ".".join(name.split(".")[:2])
    allowed = {(f"captioning.{stage}",): type} if stage else {CLASS_PACKAGES: type}
    if not stage:
        allowed[FUNCTION_PACKAGES] = types.FunctionType
    try:
        if _is_within(name, TRUSTED) or (name == METHOD and not stage):
            return get_object(name)
        for packages, kind in allowed.items():
            located = get_object(name) if _is_within(name, packages) else None
            if isinstance(located, kind) and _is_within(located.__module__, [package]):
                return located
    except ModuleNotFoundError as error:
        if not name.startswith(str(error.name)):  # an optional package that it needs
            raise missing_extra_error(name, error) from None
    except (ImportError, AttributeError, ValueError):
        pass  # nothing has that name
    if _is_within(name, MOVED):
        leaf = name.rpartition(".")[2]
        raise UserError(f"_target_={name} has moved; conf/ has the new name of {leaf}")
    top = name.partition(".")[0]
    home = f"captioning.{stage}" if stage else "those packages"
    hint = ""
    if top != "captioning" and top not in sys.stdlib_module_names:
        hint = f"; your own package takes CAPTIONING_TRUST={top} before the command"
    raise UserError(
        f"_target_={name} is not a class of {home} that a config may name (SECURITY.md){hint}"
    )


def check_node(node: Any, where: str, arguments: Mapping[str, Any] | None = None) -> None:
    """Raise UserError unless `_target_` can be called with a plain node and these `arguments`.

    Nodes and values inside are checked, too, at any depth.
    """
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node}: it is a mapping with a _target_, as in conf/")
    arguments = arguments or {}
    target = locate(node.get("_target_"))
    if node["_target_"] == METHOD:
        locate(node.get("path"))
    parameters = inspect.signature(target).parameters
    hints = _type_hints(target)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for key, value in {**node, **arguments}.items():
        if key in ("_target_", "_partial_", "_recursive_"):
            continue
        if not isinstance(key, str) or (key not in parameters and not takes_any):
            close = difflib.get_close_matches(str(key), list(parameters), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{where}: {node['_target_']} has no {key}{hint}")
        path = f"{where}.{key}" if where else key
        if key in node and key in arguments:
            raise UserError(f"{path} is set by the program: leave it out")
        check_value(path, value, hints.get(key, Any), is_config=key in node)


def check_value(where: str, value: Any, hint: Any = Any, is_config: bool = True) -> None:
    """Raise UserError unless a value suits `hint` and RANGES; one of a config at any depth."""
    if is_config and isinstance(value, Mapping) and "_target_" in value:
        check_node(value, where)
        return
    if not _has_type(value, hint):
        raise UserError(f"{where}={value}: it is {' or '.join(dict.fromkeys(_type_names(hint)))}")
    low, high = RANGES.get(where.rpartition(".")[2], (-math.inf, math.inf))
    if type(value) in (int, float) and not low <= value <= high:
        least = "more than 0" if 0 < low < 1e-6 else f"{low:g} or more"
        limits = least if high == math.inf else f"{low:g} to {high:g}"
        raise UserError(f"{where}={value}: it is {limits}")
    if is_config and isinstance(value, Mapping | list):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_value(f"{where}.{key}", inner)


def missing_extra_error(target: object, error: ModuleNotFoundError) -> UserError:
    """Return the error that says what to install."""
    return UserError(
        f"{target} needs a package that is not installed ({error}); type "
        "pip install 'captioning[offline,tensorboard,wandb]'"
    )


def _has_type(value: Any, hint: Any) -> bool:
    """Tell whether a value suits a type hint; an int is a float, but True is neither."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_has_type(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in (int, str, bool):
        return type(value) is hint
    if not isinstance(origin or hint, type):  # Any, and what only a type checker knows
        return True
    try:
        if not isinstance(value, origin or hint):
            return False
    except TypeError:  # a protocol that isinstance does not take
        return True
    return not (isinstance(value, list) and parts) or all(_has_type(v, parts[0]) for v in value)


def _type_names(hint: Any) -> list[str]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return [name for part in parts for name in _type_names(part)]
    if origin is Literal:
        return [str(part) for part in parts]
    kind = origin or hint
    return [TYPE_NAMES.get(kind, f"a {getattr(kind, '__name__', kind)}")]


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if isinstance(target, type) else target)
    except (NameError, TypeError):  # names that exist for a type checker only
        return {}


def _is_within(name: object, packages: Iterable[str]) -> bool:
    return any(name == package or str(name).startswith(f"{package}.") for package in packages)
