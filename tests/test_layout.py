"""The architecture, as tests: data never flows back up, and a name says one thing."""

import ast
import re
from collections import Counter
from pathlib import Path

import captioning

PACKAGE = Path(captioning.__file__).parent
STAGES = [  # in the order in which data flows; the commands import from all
    "data",
    "features",
    "models",
    "search",
    "metrics",
    "config",
    "checkpoint",
    "training",
    "captioner",
    "output",
    "evaluation",
    "sweeps",
    "web",
]
COMMANDS = [
    "train",
    "evaluate",
    "caption",
    "demo",
    "encode",
    "tune",
    "summarize",
    "export",
    "verify",
    "download",
    "judge",
    "replay",
]
MODULES = [path for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]


def stage(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Yield the stages that a module imports from, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "captioning":
            yield from (name.name for name in node.names if name.name != "UserError")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("captioning."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            names = (name.name.split(".") for name in node.names)
            yield from (parts[1] for parts in names if parts[0] == "captioning" and parts[1:])


def test_every_module_is_in_a_stage_or_a_command():
    assert {stage(path) for path in MODULES} == {*STAGES, *COMMANDS}


def test_a_module_imports_from_its_own_stage_and_those_above_only():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in MODULES
        for name in imports(path)
        if name not in STAGES
        or (stage(path) in STAGES and STAGES.index(name) > STAGES.index(stage(path)))
    ]
    assert not wrong


def test_no_two_modules_have_one_name():
    assert not [name for name, times in Counter(p.stem for p in MODULES).items() if times > 1]


def test_no_name_says_nothing():
    empty = {"utils", "common", "core", "base", "components", "helpers", "misc"}
    assert not [path for path in PACKAGE.rglob("*") if path.stem in empty]


def test_the_tour_is_an_afternoons_reading():
    tour = (PACKAGE.parent / "docs" / "tour.md").read_text(encoding="utf-8")
    files = [
        PACKAGE.parent / name for name in re.findall(r"^\d+\. \[(captioning/\S+\.py)\]", tour, re.M)
    ]
    assert 1 < len(files) <= 12
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 2500
    named = set(re.findall(r"`(?:captioning/)?((?:\w+/)?\w+\.py)`", tour))
    paths = {path.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert not {
        name
        for name in named
        if name not in paths and name not in {p.split("/")[-1] for p in paths}
    }
