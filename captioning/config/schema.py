"""What a config may name, and with which values: a node is checked whole before any of it is made.

`_target_` can name the classes of a few packages and the searches, nothing else that Python could
find; values must suit the signature of what they are for. Next: build.py makes it.
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

CLASSES = (
    "captioning.data",
    "captioning.features",
    "captioning.models",
    "captioning.search",
    "captioning.training",
    "captioning.web.gallery",
    "captioning.sweeps.pruning",
    "captioning.metrics",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers.CSVLogger",  # others send what they log to where a config says
    "pytorch_lightning.loggers.TensorBoardLogger",
    "pytorch_lightning.loggers.WandbLogger",
    "optuna.samplers",
    "optuna.pruners",
)
FUNCTIONS = ("captioning.search", "captioning.metrics.consensus")
METHOD = "hydra.utils.get_method"  # whose `path` is one of FUNCTIONS

# The same word means the same everywhere: the least and the most that it can be.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("batch_size", "min_count", "image_size", "images", "samples", "risk_epochs"), (1, math.inf)
    ),
    **dict.fromkeys(("width", "groups", "max_length"), (1, 1000)),
    "likelihood": (0, 1000),
    "max_images": (2, math.inf),
    **dict.fromkeys(("embed_dim", "hidden_dim", "num_layers", "heads"), (1, 1 << 16)),
    **dict.fromkeys(("min_length", "no_repeat_ngram", "weight_decay"), (0, math.inf)),
    **dict.fromkeys(
        ("diversity", "sharpness", "n_startup_trials", "n_warmup_steps"),
        (0, math.inf),
    ),
    **dict.fromkeys(("learning_rate", "risk_learning_rate", "temperature"), (1e-12, math.inf)),
    "ridge": (1e-2, 1000),  # less is lost among float32's digits
    **dict.fromkeys(("warmup", "dropout", "label_smoothing", "top_p"), (0, 1)),
    "seed": (0, 2**32 - 1),
}

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "a mapping",
}


def locate(target: object, stage: str | None = None) -> Callable[..., Any]:
    """Return what `target` names: a class of that stage of ours, or whatever a config may name.

    Its text must lie in an allowed package before anything is imported, and so must the place
    where what was found is defined: captioning.config.build.inspect.os.system is in neither. Raises
    UserError for the rest.
    """
    name = str(target)
    home = ".".join(name.split(".")[:2])
    try:
        if _within(name, TRUSTED) or (name == METHOD and not stage):
            return get_object(name)
        kinds = {CLASSES: type, FUNCTIONS: types.FunctionType}
        for allowed, kind in {(f"captioning.{stage}",): type}.items() if stage else kinds.items():
            found = get_object(name) if _within(name, allowed) else None
            if isinstance(found, kind) and _within(found.__module__, [home]):
                return found
    except ModuleNotFoundError as error:
        if not name.startswith(str(error.name)):  # an optional package that it needs
            raise missing_extra_error(name, error) from None
    except (ImportError, AttributeError, ValueError):
        pass  # there is nothing of that name
    package, known = name.partition(".")[0], f"captioning.{stage}" if stage else "those packages"
    own = package != "captioning" and package not in sys.stdlib_module_names
    raise UserError(
        f"_target_={name} is not a class of {known} that a config may name (SECURITY.md)"
        + (f"; your own package takes CAPTIONING_TRUST={package} before the command" if own else "")
    )


def check(node: Any, where: str, given: Mapping[str, Any] | None = None) -> None:
    """Raise UserError for what cannot be made of a plain node, at any depth, `given` the rest."""
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node}: it is a mapping with a _target_, as in conf/")
    target = locate(node.get("_target_"))
    if node["_target_"] == METHOD:
        locate(node.get("path"))
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    more = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for key, value in {**node, **(given or {})}.items():
        if key in ("_target_", "_partial_", "_recursive_"):
            continue
        if not isinstance(key, str) or (key not in parameters and not more):
            close = difflib.get_close_matches(str(key), list(parameters), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{where}: {node['_target_']} has no {key}{hint}")
        path = f"{where}.{key}" if where else key
        if key in node and key in (given or {}):
            raise UserError(f"{path} is not for a config to say: leave it out")
        check_value(path, value, hints.get(key, Any), inside=key in node)


def check_value(where: str, value: Any, hint: Any = Any, inside: bool = True) -> None:
    """Raise UserError where a value does not suit `hint` and its RANGES, and for what is inside."""
    if inside and isinstance(value, Mapping) and "_target_" in value:
        check(value, where)
        return
    if not fits(value, hint):
        raise UserError(f"{where}={value}: it is {' or '.join(dict.fromkeys(words(hint)))}")
    low, high = RANGES.get(where.rpartition(".")[2], (-math.inf, math.inf))
    if type(value) in (int, float) and not low <= value <= high:
        raise UserError(
            f"{where}={value}: it is {f'{low:g} to {high:g}'.replace('to inf', 'or more')}"
        )
    if inside and isinstance(value, Mapping | list):
        for name, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_value(f"{where}.{name}", one)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value suits a type hint; a whole number is a number, True is neither."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in parts)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in parts)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in (int, str, bool):
        return type(value) is hint
    if not isinstance(origin or hint, type):  # Any, and what only a type checker knows
        return True
    try:
        right = isinstance(value, origin or hint)
    except TypeError:  # a protocol that cannot be asked
        return True
    return right and (
        not isinstance(value, list) or not parts or all(fits(one, parts[0]) for one in value)
    )


def words(hint: Any) -> list[str]:
    """Say in words what a hint takes."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return [word for one in parts for word in words(one)]
    if origin is Literal:
        return [str(one) for one in parts]
    kind = origin or hint
    return [WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")]


def missing_extra_error(target: object, error: ModuleNotFoundError) -> UserError:
    """Say what to install."""
    return UserError(
        f"{target} needs a package that is not installed ({error}); the extras are "
        "pip install 'captioning[offline,tensorboard,wandb]'"
    )


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if isinstance(target, type) else target)
    except (NameError, TypeError):  # names that are there for a type checker only
        return {}


def _within(name: object, packages: Iterable[str]) -> bool:
    return any(name == one or str(name).startswith(f"{one}.") for one in packages)
