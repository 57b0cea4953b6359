"""The command line: key=value, the one obvious argument also bare, and --help.

Commands that train or score compose Hydra configs (hydra_arguments.py). Each of the others is a
function of a dataclass of its keys, which `command` reads. Nothing heavy is imported here.
"""

from __future__ import annotations

import csv
import difflib
import errno
import inspect
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from captioning import UserError

LATEST_RUN = Path("outputs/runs/latest")  # links to the newest (training/run_folder.py)
LATEST_SWEEP = Path("outputs/sweeps/latest")
LATEST = {  # what the word latest stands for, by key
    "ckpt": LATEST_RUN / "best.ckpt",
    "ckpt_path": LATEST_RUN / "last.ckpt",
    "init": LATEST_RUN / "best.ckpt",
    "file": LATEST_RUN / "not-finite.pt",
    "folders": LATEST_SWEEP,
}
KINDS = {bool: "true or false", int: "a whole number", int | None: "a whole number"}
KINDS |= {float | None: "a number"}
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
DISK_ERRORS += (errno.EACCES, errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
DISK_ERRORS += (errno.ENAMETOOLONG,)


def option(
    help: str,
    default: Any = MISSING,
    bare: bool = False,
    choices: Sequence[str] = (),
    prefixes: tuple[str, ...] = (),
) -> Any:
    """Declare a key of a command, as a field of its dataclass; without a default it is required.

    What is typed without `key=` goes to the `bare` ones, in order. A tuple with `prefixes` takes
    the arguments that begin with them, whole.
    """
    metadata = {"help": help, "bare": bare, "choices": choices, "prefixes": prefixes}
    return field(default=default, metadata=metadata)


def command(schema: type) -> Callable:
    """Make a command of a function of `schema`, as hydra.main does of a function of a config.

    The command takes the typed arguments, by default those of this process, and returns the exit
    code: 1 after an error, 2 where nothing is typed and something must be, 130 after Ctrl-C.
    """

    def decorate(function: Callable[[Any], int | None]) -> Callable:
        def main(arguments: Sequence[str] | None = None) -> int:
            arguments = sys.argv[1:] if arguments is None else arguments
            is_ready = arguments or all(key.default is not MISSING for key in fields(schema))
            if not is_ready or {"-h", "--help"} & set(arguments):
                print(help_text(schema))
                return 0 if arguments else 2
            try:
                return run_command(lambda: function(read_options(schema, arguments))) or 0
            except SystemExit as stop:
                return stop.code

        return main

    return decorate


def help_text(schema: type) -> str:
    """Return the docstring of a dataclass of keys, and a paragraph for each key."""
    lines = [inspect.cleandoc(schema.__doc__), ""]
    for key in fields(schema):
        if key.metadata["prefixes"]:  # the help of another key has those
            continue
        default = "" if key.default in (None, MISSING, ()) else key.default
        default = ",".join(default) if isinstance(default, tuple) else default
        head = f"  {key.name}={'false' if default is False else default} "
        notes = ["required"] * (key.default is MISSING)
        notes += [f"also without {key.name}="] * key.metadata["bare"]
        text = f"{', '.join(notes)}{': ' * bool(notes)}{key.metadata['help']}"
        lines += textwrap.wrap(text, 98, initial_indent=f"{head:22}", subsequent_indent=22 * " ")
    return "\n".join(lines)


def read_options(schema: type, arguments: Sequence[str]) -> Any:
    """Read what was typed into a dataclass of keys.

    Text is taken as it stands, whatever it holds; OmegaConf converts numbers and booleans. Several
    texts are `key=[A,B]`, or the key once for each. Raises UserError for a key or a value that
    cannot be, and for a required key that is missing.
    """
    converted, kinds = OmegaConf.structured(schema), get_type_hints(schema)
    keys = {key.name: key for key in fields(schema)}
    values: dict[str, Any] = {}
    for argument, following in pairwise([*arguments, "…"]):
        refuse_dashes(argument, following, keys)
        name, text = _split_argument(argument, keys, values)
        if kinds[name] == tuple[str, ...]:
            items = [find_latest(name, item) for item in split_list(text)]
            values[name] = (*values.get(name, ()), *items)
        elif kinds[name] is str:
            values[name] = find_latest(name, text)
        else:
            try:
                converted[name] = text
                values[name] = converted[name]
            except OmegaConfBaseException:
                raise UserError(f"{name}={text}: it is {KINDS[kinds[name]]}") from None
    for name, key in keys.items():
        choices = key.metadata["choices"]
        if choices and name in values and values[name] not in choices:
            raise UserError(f"{name}={values[name]}: it is {' or '.join(choices)}")
        if key.default is MISSING and not values.get(name):
            raise UserError(f"{name}= is missing; --help lists the keys")
    return schema(**values)


def _split_argument(
    argument: str, keys: Mapping[str, Field], values: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the key that an argument is for, and the text for it."""
    for name, key in keys.items():
        if argument.startswith(key.metadata["prefixes"]):
            return name, argument
    names = [name for name, key in keys.items() if not key.metadata["prefixes"]]
    name, equals, text = argument.partition("=")
    if equals and name in names:
        return name, text
    if equals and name.isidentifier() and not os.path.lexists(argument):
        close = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {close[0]}=?" if close else ""
        raise UserError(f"{argument} is not one of {', '.join(f'{name}=' for name in names)}{hint}")
    for name in names:
        is_free = name not in values or isinstance(values[name], tuple)
        if keys[name].metadata["bare"] and is_free:
            return name, argument
    missing = [name for name in names if keys[name].default is MISSING and name not in values]
    hint = f"{missing[0]}= is missing" if missing else "type a pattern of file names in quotes"
    raise UserError(f"{argument} is too much; {hint}")


def refuse_dashes(argument: str, following: str, keys: Mapping[str, Field]) -> None:
    """Raise UserError for `--key value`, as some commands once took it, with today's spelling."""
    if not argument.startswith("-") or argument == "-":
        return
    name, equals, text = argument.lstrip("-").partition("=")
    name = name.replace("-", "_")
    if name not in keys:
        raise UserError(f"{argument} is not key=value; --help lists the keys")
    if not equals:
        text = "true" if keys[name].default is False else following
    raise UserError(f"type {shlex.quote(f'{name}={text}')} instead of {argument}")


def split_list(text: str) -> list[str]:
    """Return the items of `[A,B]`; other text, and a path that exists, is one item.

    A comma in quotes, or in the name of a file, separates none.
    """
    if not re.fullmatch(r"\[.*\]", text, re.DOTALL) or os.path.exists(text):
        return [text]
    paths, path = [], ""
    for piece in text[1:-1].split(","):
        path = f"{path},{piece}" if path else piece.strip()
        if os.path.exists(path):
            paths.append(path)
            path = ""
    if paths and not path:  # all of them exist
        return paths
    return next(csv.reader([text[1:-1]], quotechar="'", skipinitialspace=True), [])


def find_latest(key: str, text: str) -> str:
    """Return the path typed for a key, or what the word latest stands for.

    Raises UserError where it has none.
    """
    if text != "latest" or key not in LATEST:
        return text
    found = LATEST[key]
    if not found.exists():
        raise UserError(f"there is no {found}: train first, or type a path, such as ./latest")
    return os.path.relpath(found.resolve())


def hydra_value(override: str) -> Any:
    """Return what Hydra reads of key=value; None, too, for what it cannot read."""
    try:
        return OverridesParser.create().parse_override(override).value()
    except HydraException:
        return None


def check_device(device: str) -> None:
    """Raise UserError unless `device` is cpu, or a GPU that torch finds."""
    import torch

    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if device not in ("cpu", *gpus, *["cuda"] * bool(gpus)):
        raise UserError(f"device={device}: it is cpu, or cuda where torch finds a GPU")


@contextmanager
def disk_errors(resume_command: Callable[[], str]) -> Iterator[None]:
    """Turn what a disk refuses into a UserError, with what to type when that is mended."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        reason = f"{error.filename2 or error.filename or 'a file'}: {error.strerror}"
        raise UserError(f"{reason}; mend that, then {resume_command()} goes on") from error


def run_command(function: Callable, *arguments: Any) -> Any:
    """Run a command; exit with a sentence and 1 for a UserError, with 130 after Ctrl-C."""
    try:
        with disk_errors(lambda: "the same command"):
            return function(*arguments)
    except UserError as error:
        # In a sweep Hydra notes the failure and goes on with the next job.
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        print("error: " + str(error).removeprefix("error: "), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on, or begins again", file=sys.stderr)
        sys.exit(130)
