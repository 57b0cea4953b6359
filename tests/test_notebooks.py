"""The notebooks: committed clean, short, and run from the first cell to the last."""

import ast
import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from verbs import TINY, run

NOTEBOOKS = {path.stem: path for path in Path(__file__).parents[1].glob("notebooks/*.ipynb")}
IMPORTED = {"pandas", "captioning", "os", "IPython", "pathlib", "subprocess", "sys"}
each = pytest.mark.parametrize("name", sorted(NOTEBOOKS))


def code(name):
    cells = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def lines(cell):
    return "".join(cell["source"]).splitlines()


@each
def test_committed_without_outputs(name):
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code(name))


@each
def test_cells_are_five_lines_at_most(name):
    assert all(len(lines(cell)) <= 5 for cell in code(name))


@each
def test_what_is_not_five_lines_is_imported_from_captioning(name):
    text = "\n".join(line for cell in code(name) for line in lines(cell) if line[0:1] != "%")
    tree = ast.parse(text)
    assert not [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    modules = [one.module for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
    modules += [
        alias.name for one in ast.walk(tree) if isinstance(one, ast.Import) for alias in one.names
    ]
    assert {module.split(".")[0] for module in modules} <= IMPORTED


@each
def test_the_first_cell_holds_the_one_path(name):
    paths = [line for line in lines(code(name)[0]) if "os.environ.get(" in line]
    assert len(paths) == 1
    assert "../" not in "".join(line for cell in code(name)[1:] for line in lines(cell))


@pytest.fixture(scope="session")
def attentive(folder):
    """The folder of a run of a model that looks at regions."""
    options = ["model=attention", "encoder.image_size=64", "data.root=data", "trainer=debug"]
    done = run(folder, *TINY, *options, "hydra.run.dir=runs/attentive")
    assert done.returncode == 0, done.stderr
    return folder / "runs"


def markdown_or_plain(data):
    return data.get("text/markdown") or data.get("text/plain", "")


def execute(name, folder, monkeypatch, **paths):
    """Run a notebook in `folder`/notebooks, with its path from the environment."""
    for key, value in paths.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = folder / "notebooks"
    place.mkdir()
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(place)}}).execute()
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    # Where a page should be looked at: CAPTIONING_KEEP=FOLDER keeps the notebooks as they came out.
    if kept := os.environ.get("CAPTIONING_KEEP"):
        nbformat.write(notebook, Path(kept) / f"{name}.ipynb")
    text = "\n".join(one.get("text") or markdown_or_plain(one["data"]) for one in outputs)
    return text, sum("image/png" in one.get("data", {}) for one in outputs)


@pytest.mark.slow
def test_01_shows_the_data(folder, tmp_path, monkeypatch):
    text, figures = execute("01_data", tmp_path, monkeypatch, CAPTIONING_DATA=folder / "data")
    assert "ready" not in text  # that is the verb's word
    assert "pictures that cannot be decoded" in text
    assert "there is a red square" in text
    assert figures == 3


@pytest.mark.slow
def test_02_captions_pictures_and_shows_attention(attentive, tmp_path, monkeypatch):
    text, figures = execute("02_captions", tmp_path, monkeypatch, CAPTIONING_RUN=attentive)
    assert "there is a" in text
    assert figures == 3


@pytest.mark.slow
def test_03_shows_errors(trained, tmp_path, monkeypatch):
    text, figures = execute("03_errors", tmp_path, monkeypatch, CAPTIONING_RUN=trained[1])
    assert "4 captions, " in text
    assert "of all captions are a training caption" in text
    assert figures == 6


@pytest.mark.slow
def test_04_makes_a_small_sweep_and_shows_what_mattered(tmp_path, monkeypatch):
    text, figures = execute("04_sweep", tmp_path, monkeypatch)
    assert "| lstm | 0.01 | 2 |" in text
    assert figures == 5
    assert len(list(tmp_path.glob("outputs/sweeps/small/*/best.ckpt"))) == 8
