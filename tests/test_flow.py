"""The architecture, as a test: data never flows back up."""

import ast
from pathlib import Path

import captioning

PACKAGE = Path(captioning.__file__).parent
STAGES = [
    "data",
    "features",
    "models",
    "search",
    "metrics",
    "callbacks",
    "guard",
    "targets",
    "compose",
    "build",
    "exports",
    "captioner",
    "reports",
    "page",
    "sweeps",
]


def stage(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("captioning."):
            yield node.module.split(".")[1]


def test_a_stage_imports_only_from_stages_above_it():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        if stage(path) in STAGES
        for name in imported(path)
        if name not in STAGES or STAGES.index(name) > STAGES.index(stage(path))
    ]
    assert not wrong


def test_no_file_is_called_what_says_nothing():
    empty = {"utils", "common", "core", "base", "components", "helpers", "misc"}
    assert not [path for path in PACKAGE.rglob("*") if path.stem in empty]
