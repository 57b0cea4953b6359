"""What the documents and the Makefile tell a reader to type is run: on tiny data, or elsewhere.

`ELSEWHERE` names the test, or why there is none. And each key and choice of a command is there.
"""

import csv
import importlib.util
import inspect
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from composing import composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf
from PIL import Image
from test_conf import GIVEN, nodes
from verbs import TINY, run

from captioning import UserError
from captioning.config.cli import read_options
from captioning.config.hydra_arguments import hydra_arguments
from captioning.evaluation.saved_run import open_run
from captioning.search.beam import beam_search

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\w+=\S+ )*(?:python -m (?:captioning|benchmarks)|make |pytest )[^`]*)`")
TARGETS = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


ELSEWHERE = {  # which commands: the test that runs them, or why none does
    r"make test$|pytest": "this is it",
    r"make (setup|lock)$": "the network",
    r"make (demo|data|train|pretrained|bench|gpu)$": "tests/test_docs.py::"
    "test_a_target_types_what_is_run",
    r"make \w+$": "tests/test_docs.py::test_a_target_does_its_work",
    r"^\. |pip install": "the network",
    r"-m benchmarks( smoke)?$": "tests/test_benchmarks.py::test_every_row_is_measured",
    r"benchmarks.gpu": "tests/test_benchmarks.py::"
    "test_the_page_of_results_shows_the_table_of_each_file",
    r"benchmarks.losses write": "tests/test_benchmarks.py::"
    "test_losses_are_compared_with_those_that_were_written",
    r"benchmarks.load": "tests/test_load.py::test_no_client_harms_another_and_memory_stays",
    r"benchmarks.learning_curve": "tests/test_benchmarks.py::"
    "test_a_learning_curve_is_drawn_and_no_run_is_run_again",
    r"benchmarks.million": "tests/test_benchmarks.py::test_a_million_may_be_a_hundred",
    r"captioning.download flickr8k": "tests/test_download.py::"
    "test_flickr8k_ends_in_the_original_layout",
    r"captioning.download resnet": "tests/test_download.py::test_weights_end_in_the_cache_of_torch",
    r"captioning.download bert": "tests/test_download.py::"
    "test_a_hub_id_goes_to_the_hub_and_needs_safetensors",
    r"outputs/pretrained": "tests/test_pretrained.py::"
    "test_the_card_has_the_scores_that_were_measured_of_it",
    r"benchmarks.speedrun": "tests/test_benchmarks.py::test_a_speed_run_is_a_record_if_it_is_sure",
    r"caption photographs": "tests/test_pretrained.py::"
    "test_the_command_captions_with_it_unless_another_is_typed",
    r"captioning.demo": "tests/test_load.py::test_no_client_harms_another_and_memory_stays",
    r"format=onnx": "tests/test_export.py::test_onnx_runtime_alone_says_the_same",
    r"captioning.judge": "tests/test_judge.py::test_every_metric_is_judged",
    r"captioning.replay": "tests/test_stopping.py::test_a_loss_that_is_not_finite_leaves_its_batch",
    r"also=\[meteor\]": "tests/metrics/test_java.py",
    r"confidence=true": "tests/test_evaluate.py::"
    "test_confidence_is_left_beside_the_checkpoint_and_reported",
    r"benchmarks.made_up_errors": "tests/test_benchmarks.py::"
    "test_each_kind_of_error_is_made_and_seen",
    r"launcher=ray": "tests/test_launchers.py::test_ray_tasks_divide_an_encoding",
    r"launcher=joblib": "tests/test_launchers.py::test_joblib_divides_the_threads_of_the_machine",
    r"launcher=submitit_slurm": "a SLURM; tests/test_launchers.py has its local queue",
    r"storage=postgresql": "tests/sweeps/test_study.py::"
    "test_a_killed_workers_trial_is_run_again_and_none_counts_twice",
    r"gpus=4": "GPUs",
    r"devices=2": "tests/test_processes.py::test_two_processes_have_the_loss_curve_of_one",
    r"torchrun.*encode": "tests/test_encode.py::test_torchrun_divides_the_images",
    r"torchrun": "tests/test_processes.py::test_torchrun_starts_the_processes_too",
    r"CAPTIONING_TRUST": "tests/test_docs.py::test_a_package_of_ones_own_is_trained_and_captions",
    r"^tensorboard": "tests/test_docs.py::test_tensorboard_shows_the_columns_of_metrics_csv",
    r"captioning.summarize FOLDER": "tests/sweeps/test_summary.py::"
    "test_the_command_prints_and_writes_the_table_and_the_missing_runs",
    r"captioning.\w+( -m)?$": "only named; with a plain config, model=lstm is the same",
}


def commands(text):
    """Yield the lines of code blocks in no language, and inline commands; trees are left out."""
    for language, block in BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if not language and not lines[0].endswith("/"):
            yield from filter(None, (line.split("  #")[0].strip() for line in lines))
    yield from (inline.replace("\n", " ") for inline in INLINE.findall(BLOCK.sub("", text)))


def bind(command):
    """Raise an AssertionError where what a reader would type is not what the project reads."""
    words = shlex.split(command, comments=True)
    while re.match(r"\w+=", words[0]):  # a variable of the environment
        words.pop(0)
    if words[0] == "torchrun":  # whose own options are not ours
        words = ["python", *words[words.index("-m") :]]
    match words:
        case ["python", "-m", module, *arguments] if module.startswith("captioning."):
            bind_verb(module, arguments)
        case ["python", "-m", module, *_] if module.startswith("benchmarks"):
            assert importlib.util.find_spec(module)
        case ["pytest", folder]:
            assert (ROOT / folder).exists()
        case ["make", target, *variables]:
            assert target in TARGETS, f"make has no target {target}"
            assert all("=" in variable for variable in variables)
        case ["pip", "install", package]:
            extras = re.fullmatch(r"captioning\[([\w,]+)\]", package)[1].split(",")
            assert set(extras) <= set(EXTRAS)
        case [".", ".venv/bin/activate"] | ["tensorboard", "--logdir", "outputs/runs"]:
            pass
        case _:
            raise AssertionError(f"what is {command!r}?")


def bind_verb(name, arguments):
    """Compose, or parse, what stands behind `python -m NAME`."""
    module = importlib.import_module(name)
    source = inspect.getsource(module)
    if config := re.search(r'hydra_arguments, sys.argv\[1:\], "(\w+)"(?:, "(.+)")?\)', source):
        bind_config(config[1], hydra_arguments(arguments, config[1], config[2] or ""))
    elif not arguments:  # a command that the text only names
        assert callable(module.main)
    else:
        (schema,) = [value for key, value in vars(module).items() if key.endswith("Options")]
        read_options(schema, arguments)


def bind_config(config, arguments):
    """Compose the config once for every value that a sweep gives to any of its keys."""
    # The reader's own model stands for any.
    typed = [re.sub("^model=(yours|mine)$", "model=lstm", argument) for argument in arguments]
    typed = [argument for argument in typed if not argument.startswith("-")]
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [override.input_line]
        for override in OverridesParser.create().parse_overrides(typed)
    ]
    for job in range(max(map(len, choices), default=1)):
        chosen = [values[job % len(values)] for values in choices]
        for path, node in nodes(composed(*chosen, config=config)):
            target = get_object(node._target_)
            plain = OmegaConf.to_container(node)
            names = [key for key in plain if not key.startswith("_")]
            if config == "evaluate":  # whose keys that are null are those of the checkpoint
                names = [key for key in names if plain[key] is not None]
            names += GIVEN.get(target.__name__, [])
            try:
                inspect.signature(target).bind(**dict.fromkeys(names))
            except TypeError as error:
                raise AssertionError(f"{path}: {error}") from None


def read(page):
    """Return a page's text; of a notebook what stands between its cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMMANDS = [(page.name, line) for page in [*PAGES, *NOTEBOOKS] for line in commands(read(page))]


def is_elsewhere(line):
    return any(re.search(pattern, line) for pattern in ELSEWHERE)


RUN_HERE = dict.fromkeys(line for _, line in COMMANDS if not is_elsewhere(line))


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda part: part[:60])
def test_every_command_binds(page, command):
    bind(command)


def test_commands_are_found_in_every_page():
    assert {page for page, _ in COMMANDS} >= {page.name for page in PAGES} - {"tour.md"}
    assert len(COMMANDS) > 90
    assert len(RUN_HERE) > 50


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of one process that ran all commands on tiny data, and the error of each."""
    folder, files = tmp_path_factory.mktemp("commands"), tmp_path_factory.mktemp("files")
    (files / "commands.json").write_text(json.dumps(list(RUN_HERE)))
    script = Path(__file__).with_name("commands.py")
    command = [sys.executable, script, folder, files / "commands.json", files / "results.json"]
    environment = {"HF_HUB_OFFLINE": "1", "TORCH_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return folder, json.loads((files / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN_HERE, ids=lambda command: command[:70])
def test_every_command_runs(ran, command):
    assert not ran[1][command], ran[1][command]


@pytest.mark.slow
def test_tensorboard_shows_the_columns_of_metrics_csv(ran):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (folder,) = ran[0].glob("outputs/runs/watched/*")
    shown = events.EventAccumulator(str(folder / "tensorboard")).Reload().Tags()["scalars"]
    with open(folder / "metrics.csv", newline="") as file:
        assert {*shown, "step"} == {*next(csv.reader(file))}
    text = (ROOT / "docs" / "models.md").read_text().split("### Watching")[1].split("\n## ")[0]
    named = set(re.findall("`((?:train|val|lr-AdamW)/[^`]+|epoch)`", text))
    assert named - {*shown} == {"train/reward"}  # of training=risk


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_what_is_run_elsewhere_is_there(pattern):
    lines = [line for _, line in COMMANDS] + [line for each in TARGETS for line in recipe(each)]
    assert any(re.search(pattern, line) for line in lines), "no document says so any more"
    if test := re.match(r"(tests/\S+\.py)(?:::(\w+))?", ELSEWHERE[pattern]):
        assert f"def {test[2] or 'test_'}" in (ROOT / test[1]).read_text()


def make(folder, *arguments):
    """Run make with the programs of this interpreter's environment, also within `make test`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "-o", ".venv/.installed", f"BIN={Path(sys.executable).parent}", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def recipe(target):
    """Return the lines that a target would run, without the folder of the programs."""
    done = make(ROOT, "-n", target)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [line.strip().replace(f"{Path(sys.executable).parent}/", "") for line in lines]


@pytest.mark.parametrize("target", ["demo", "train", "data", "pretrained", "bench", "gpu"])
def test_a_target_types_what_is_run(target):
    for line in recipe(target):
        if line.startswith(("rm -rf ", "cp ")):
            continue
        bind(line)
        assert line in RUN_HERE or is_elsewhere(line), line


@pytest.mark.skipif(not Path(sys.executable).with_name("ruff").exists(), reason="needs ruff")
def test_a_target_does_its_work(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    assert set(re.findall(r"make (\w+)", make(tmp_path, "help").stdout)) >= set(TARGETS)
    (tmp_path / "shapes.py").write_text('"""Shapes."""\n\nimport os\n\nx = \'y\'\n')
    assert make(tmp_path, "lint").returncode != 0
    assert make(tmp_path, "format").returncode == 0
    assert (tmp_path / "shapes.py").read_text().split() == ['"""Shapes."""', "x", "=", '"y"']
    assert make(tmp_path, "lint").returncode == 0
    for name in ("features", "data", "runs"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    assert make(tmp_path, "clean").returncode == 0
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["runs"]


def test_an_environment_that_was_moved_is_mended(tmp_path):
    for name in ("requirements.lock", "pyproject.toml", ".venv/.installed", ".venv/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir()
    for name, text in {"python": "#!/bin/sh\n", "jupyter": "#!/old/.venv/bin/python3\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "-f", ROOT / "Makefile", "setup", "PYTHON=true"]
    for made_in, expected in (("/old", "pip install"), (tmp_path, "Nothing to be done")):
        (tmp_path / ".venv" / "pyvenv.cfg").write_text(f"command = p -m venv {made_in}/.venv\n")
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert expected in done.stdout, done.stderr
    assert (programs / "jupyter").read_text() == f"#!{programs}/python3\n"


@pytest.mark.parametrize(
    "command",
    [
        "python -m captioning.train model.hiden_dim=3",
        "python -m captioning.train -m model=lstm,perceptron",
        "python -m captioning.caption ckpt=a image=b",
        "python -m captioning.predict ckpt=a",
        "make all",
        "pip install 'captioning[gpu]'",
        "ls outputs",
    ],
)
def test_a_wrong_command_does_not_bind(command):
    wrong = (AssertionError, HydraException, UserError, SystemExit, ModuleNotFoundError)
    with pytest.raises(wrong):
        bind(command)


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.slow
def test_images_of_ones_own_take_two_commands(tmp_path):
    """The page's own lines, on a folder as it describes it; the training is cut short."""
    (tmp_path / "mine" / "dogs").mkdir(parents=True)
    with open(tmp_path / "mine" / "captions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for number in range(40):
            name = f"dogs/{number}.jpg" if number % 2 else f"{number}.png"
            Image.new("RGB", (64, 48), (6 * number, 0, 99)).save(tmp_path / "mine" / name)
            table.writerows([(name, "a dog, asleep"), (name, f"a dog of colour {number % 3}")])
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").split("\n## ")[1]
    lines = [shlex.split(line)[2:] for line in commands(text)]
    (verify, *folder), (train, *options), (caption, *arguments) = lines
    checked = run(tmp_path, *folder, module=verify)
    assert checked.stdout.endswith("ready to train on\n")
    done = run(tmp_path, *options, "trainer=debug", "trainer.gpus=0", module=train)
    assert done.returncode == 0, done.stderr
    (checkpoint,) = tmp_path.glob("outputs/runs/mine/*/best.ckpt")
    assert f"outputs/runs/mine/{checkpoint.parent.name}/best.ckpt" in done.stdout
    assert open_run(tmp_path / "outputs" / "runs" / "mine").generated()
    arguments = [argument.replace("TIME", checkpoint.parent.name) for argument in arguments]
    (tmp_path / "mine" / "dogs").rename(tmp_path / "holiday")
    assert run(tmp_path, *arguments, module=caption).returncode == 0
    with open(tmp_path / "mine.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 20


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/models.md", "docs/checkpoints.md"])
def test_python_is_run_as_it_stands(page, trained, folder, monkeypatch, tmp_path):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = [block for language, block in BLOCK.findall(text) if language == "python"]
    blocks = [block for block in blocks if "best.ckpt" in block or "default()" in block]
    assert blocks
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "data", "data/flickr8k")
    for name in ("lstm", "flickr8k_best"):
        shutil.copytree(trained[1], f"outputs/runs/{name}/TIME")
    Path("holiday").mkdir()
    shutil.copy("data/flickr8k/val-red.png", "holiday/beach.jpg")
    shutil.copy("data/flickr8k/val-blue.png", "holiday/dog.jpg")
    for block in blocks:
        exec(block, {})


def test_the_pages_own_model_is_a_decoder():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (block,) = [block for _, block in BLOCK.findall(text) if "(Decoder)" in block]
    defined = {}
    exec(block, defined)
    decoder = defined["GRUDecoder"](vocabulary_size=11, feature_dim=6, hidden_dim=8).eval()
    features, tokens = torch.randn(2, 6), torch.randint(4, 11, (2, 5))
    logits, state = decoder(features, tokens), decoder.begin(features)
    for time in range(5):
        step, state = decoder.step(tokens[:, time], state)
        assert torch.allclose(step, logits[:, time], atol=1e-6)
    assert beam_search(decoder, features, width=3).tokens.shape[:2] == (2, 3)


@pytest.mark.slow
def test_a_package_of_ones_own_is_trained_and_captions(folder, tmp_path, monkeypatch):
    """The page's class, files and commands, in a folder outside the checkout."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (block,) = [block for _, block in BLOCK.findall(text) if "(Decoder)" in block]
    files = {"my_package/gru.py": block}
    files["conf/model/mine.yaml"] = "_target_: my_package.gru.GRUDecoder\nhidden_dim: 8\n"
    for name, content in files.items():
        assert name in text
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    shutil.copytree(folder / "data", tmp_path / "holiday")
    train, caption = commands(text.split("### A package of")[1].split("\n## ")[0])
    name, value = shlex.split(train)[0].split("=")
    train, caption = shlex.split(train)[4:], shlex.split(caption)[4:]
    train += [*TINY[:-1], "data.root=holiday", "trainer.max_epochs=1", "hydra.run.dir=run"]
    caption = [argument.replace("PATH", "run/best.ckpt") for argument in caption]
    assert f"takes {name}={value} before the command" in run(tmp_path, *train).stderr
    monkeypatch.setenv(name, value)
    assert run(tmp_path, *train).returncode == 0
    assert "holiday/val-red.png\t" in run(tmp_path, *caption, module="captioning.caption").stdout


TYPES = {"int": int, "str": str, "bool": bool, "dict": dict, "float": float, "Tensor": torch.Tensor}
TYPES |= {"None": type(None), "list": list}


@pytest.mark.slow
def test_a_checkpoint_holds_what_its_page_says(trained):
    checkpoint = torch.load(trained[1] / "best.ckpt", weights_only=True)
    contents, weights = checkpoint["captioning"], checkpoint["state_dict"]
    sizes = {"words": len(contents["vocabulary"]), "features": 512, **contents["config"]["model"]}
    sections = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8").split("\n## ")
    *tables, shapes = [
        [
            (name, kind, text)
            for names, kind, text in re.findall(r"^\| (`.+?) \| (.+?) \| (.*?) ?\|$", section, re.M)
            for name in re.findall("`(.+?)`", names)
        ]
        for section in sections[1:6]
    ]
    parts = [checkpoint, contents, contents["encoder"], contents["config"]]
    for table, part in zip(tables, parts, strict=True):
        assert {name for name, _, _ in table} == {*part}
        for name, kind, _ in table:
            assert_type(part[name], kind)
    assert [name for name, _, _ in shapes] == [*weights]
    for name, dtype, shape in shapes:
        axes = [axis.split() for axis in shape.split(", ") if axis]
        axes = [math.prod(int(sizes.get(factor, factor)) for factor in axis) for axis in axes]
        assert (weights[name].dtype, [*weights[name].shape]) == (getattr(torch, dtype), axes)
    (callbacks,) = [text for name, _, text in tables[0] if name == "callbacks"]
    assert all(key.partition("{")[0] in callbacks for key in checkpoint["callbacks"])


def assert_type(value, kind):
    """Raise unless a value is a `list of int`, an `int or None`, …."""
    kind, _, inner = kind.partition(" of ")
    assert isinstance(value, tuple(TYPES[each] for each in kind.split(" or "))), (kind, value)
    for each in (value.values() if isinstance(value, dict) else value) if inner else ():
        assert_type(each, inner)


@pytest.mark.slow
def test_the_pages_own_metric_is_logged_and_changes_no_other(trained, folder, tmp_path):
    """Its file and its row, first in the table of a copy of the package; then the commands."""
    for name in ("captioning", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc"))
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    text = text.split("### A metric of your")[1]
    function, row = [block for language, block in BLOCK.findall(text) if language == "python"]
    (tmp_path / "captioning/metrics/repetition.py").write_text(function)
    table = (tmp_path / "captioning/metrics/score_table.py").read_text()
    table = table.replace("TABLE = {\n", f"TABLE = {{\n{row}")
    line = "from captioning.metrics.rouge import"
    table = table.replace(line, f"from captioning.metrics.repetition import repetition\n{line}")
    (tmp_path / "captioning/metrics/score_table.py").write_text(table)
    shutil.copytree(folder / "data", tmp_path / "data")
    options = ["data.root=data", "trainer.max_epochs=2", "hydra.run.dir=run"]
    done = run(tmp_path, *TINY, *options, "monitor=val/repetition")
    assert done.returncode == 0, done.stderr
    runs = [json.loads((path / "run.json").read_text()) for path in (tmp_path / "run", trained[1])]
    for new, old in zip(*[content["history"] for content in runs], strict=True):
        assert 0 <= new.pop("val/repetition") < 1
        assert new == pytest.approx(old, abs=1e-6)
    done = run(tmp_path, "run/best.ckpt", module="captioning.evaluate")
    assert "| captions | references | repetition ↓ | CIDEr-D |" in done.stdout, done.stderr
    with open(tmp_path / "run" / "captions.csv", newline="") as file:
        assert {"repetition", "cider"} <= set(next(csv.DictReader(file)))
