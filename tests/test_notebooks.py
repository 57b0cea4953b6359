"""The notebooks: committed clean, short, and run from the first cell to the last."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from verbs import TINY, run

NOTEBOOKS = {path.stem: path for path in Path(__file__).parents[1].glob("notebooks/*.ipynb")}
IMPORTED = {"pandas", "captioning", "os", "IPython", "pathlib", "subprocess", "sys"}


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_cells_are_clean_and_short_and_import_their_functions_and_take_one_path(name):
    cells = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert max(len(cell["source"]) for cell in cells) <= 5
    first, *others = ["".join(cell["source"]) for cell in cells]
    assert first.count("os.environ.get(") == 1
    assert "../" not in "".join(others)
    nodes = list(ast.walk(ast.parse("\n".join([first, *others]).replace("%matplotlib inline", ""))))
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    ]
    assert {module.split(".")[0] for module in modules} <= IMPORTED


@pytest.fixture(scope="session")
def attention_run(folder):
    """The folder of a run of a model with attention, which has the name of its data."""
    options = ["model=attention", "encoder.image_size=64", "data.root=data", "trainer=debug"]
    done = run(folder, *TINY, *options, "hydra.run.dir=runs/data")
    assert done.returncode == 0, done.stderr
    return folder / "runs"


def execute(name, folder, monkeypatch, **paths):
    """Run a notebook in `folder`/notebooks, with its path from the environment."""
    for key, value in paths.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cwd = folder / "notebooks"
    cwd.mkdir()
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(cwd)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output.get("data") or {"text/plain": output["text"]} for output in outputs]
    text = "\n".join(data.get("text/markdown") or data.get("text/plain", "") for data in shown)
    return text, sum("image/png" in data for data in shown)


@pytest.mark.slow
def test_00_captions_photographs_and_is_finetuned(tmp_path, monkeypatch):
    text, figures = execute("00_start", tmp_path, monkeypatch, CAPTIONING_IMAGES="photographs")
    assert "a man is taking a picture" in text
    assert "scores of" in text and "checkpoint: " in text
    assert figures == 3


@pytest.mark.slow
def test_01_shows_the_data(folder, tmp_path, monkeypatch):
    text, figures = execute("01_data", tmp_path, monkeypatch, CAPTIONING_DATA=folder / "data")
    assert "images that cannot be decoded" in text
    assert "there is a red square" in text
    words_at = dict(re.findall(r"^(\d+) +(\d+) +\d\.\d+$", text, re.MULTILINE))
    assert (words_at["1"], words_at["3"], words_at["10"]) == ("8", "4", "0")
    assert figures == 3


@pytest.mark.slow
def test_02_captions_pictures_and_shows_attention(attention_run, tmp_path, monkeypatch):
    text, figures = execute("02_captions", tmp_path, monkeypatch, CAPTIONING_RUN=attention_run)
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
