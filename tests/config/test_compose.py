"""What a command composes: keys that something reads; and what it leaves as it was."""

import json
import pickle
import subprocess
import sys

import pytest
from composing import composed
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from captioning.config.compose import CONF, checked_configs
from captioning.config.trust import RefusedError


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hidden_dim=64", "no key hidden_dim; did you mean model.hidden_dim?"),
        ("max_epochs=7", "no key max_epochs; did you mean trainer.max_epochs?"),
        ("learning_rate=1", "no key learning_rate; did you mean training.learning_rate?"),
        ("model.hiden_dim=3", "no key model.hiden_dim; did you mean model.hidden_dim?"),
        ("trainer.max_epoch=3", "no key trainer.max_epoch; did you mean trainer.max_epochs?"),
        ("fast_dev_run=true", "no key fast_dev_run; did you mean trainer.fast_dev_run?"),
        ("data.rot=x", "no key data.rot; did you mean data.root?"),
        ("modell=lstm", "no key modell; did you mean model?"),
        ("experimnt=demo", "no key experimnt; did you mean experiment?"),
        ("callbacks.galery=null", "no key callbacks.galery; did you mean callbacks.gallery?"),
        ("hydra.run.dirr=x", "no key hydra.run.dirr; did you mean hydra.run.dir?"),
        ("'callbacks.x={_target_: pytorch_lightning.callbacks.Timer, duraton: 1}'", "x.duration?"),
        ("mode=min", "mode=min: mode follows from monitor; leave it out"),
        ("gallery=null", "did you mean callbacks.gallery?"),
        ("nonsense=1", "no key nonsense; --help lists the keys"),
    ],
)
@pytest.mark.parametrize("plus", ["", "+"])
def test_a_key_that_nothing_reads_is_refused_with_the_closest(typed, message, plus):
    with pytest.raises(RefusedError) as refused:
        composed(plus + typed.strip("'"))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("config", "typed", "message"),
    [
        ("evaluate", "data.rot=x", "did you mean data.root?"),
        ("evaluate", "+encoder.crop=true", "no key encoder.crop"),
        ("evaluate", "+encoder=resnet50", "no encoder to choose here"),
        ("evaluate", "model=merge", "no model to choose here"),
        ("encode", "wroker=1", "did you mean worker?"),
        ("tune", "trails=9", "did you mean trials?"),
        ("tune", "tune.sampler.sed=9", "did you mean tune.sampler.seed?"),
    ],
)
def test_other_commands_refuse_it_too(config, typed, message):
    with pytest.raises(RefusedError) as refused:
        composed(typed, config=config)
    assert message in str(refused.value)


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.fast_dev_run", True),
        ("callbacks.last.save_weights_only", True),
        ("text_encoder.max_length", 9),
        ("callbacks.early._target_", "pytorch_lightning.callbacks.EarlyStopping"),
    ],
)
def test_an_argument_that_the_yaml_leaves_out_may_be_typed(key, value, plus):
    assert OmegaConf.select(composed(f"{plus}{key}={json.dumps(value)}"), key) == value


def test_a_choice_may_have_a_plus():
    assert composed("+experiment=demo").name == "demo"
    assert composed("+model=merge").model._target_.endswith("MergeDecoder")


def test_a_checkpoints_data_take_what_any_source_takes():
    assert composed("data.layout=csv", config="evaluate").data.layout == "csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hidden_dim: 3", "did you mean model.hidden_dim?"),
        ("model: {hiden_dim: 3}", "did you mean model.hidden_dim?"),
        ("trainer: {fast_dev_run: true}", None),
        ("callbacks: {x: {_target_: pytorch_lightning.callbacks.Timer}}", None),
    ],
)
@pytest.mark.parametrize("group", ["experiment", "sweep"])
def test_keys_of_a_file_are_known_too(tmp_path, group, content, message):
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    typed = [f"hydra.searchpath=[file://{tmp_path}]", f"{group}=mine"]
    if message is None:
        composed(*typed)
        return
    with pytest.raises(RefusedError) as refused:
        composed(*typed)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "typed",
    [
        "data.root=../../mine",
        "data.root=..",
        "encoder.weights=../x.pth",
        "ckpt_path=../x/last.ckpt",
        "datamodule.features_root=../../x",
        "text_encoder.path=../../x",
    ],
)
@pytest.mark.parametrize("config", ["config", "tune"])
def test_a_run_reads_from_wherever_its_user_says(typed, config):
    key, _, value = typed.partition("=")
    assert OmegaConf.select(composed("data=folder", typed, config=config), key) == value


@pytest.fixture
def unrestricted(monkeypatch):
    """What ${oc.env:TOKEN} gives in a process where no command runs."""
    monkeypatch.setenv("TOKEN", "secret")
    node = OmegaConf.create({"x": "${oc.env:TOKEN}"})
    assert node.x == "secret"
    yield node
    assert node.x == "secret"


def test_what_a_command_changed_is_as_before_when_it_ends(unrestricted):
    with checked_configs(), pytest.raises(Exception, match="asks for the variable TOKEN"):
        _ = unrestricted.x
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("config", ["+hidden_dim=64"]).hidden_dim == 64


def test_the_process_of_a_job_is_restricted_as_the_commands(unrestricted):
    with checked_configs(), initialize_config_dir(str(CONF), version_base="1.3"):
        sent = pickle.dumps(GlobalHydra.instance().config_loader())
    try:
        pickle.loads(sent)
        with pytest.raises(Exception, match="asks for the variable TOKEN"):
            _ = unrestricted.x
    finally:
        with checked_configs():
            pass


IMPORTS = """
import importlib, logging, os, pkgutil, random, signal, socket, sys, warnings
import hydra._internal.hydra, matplotlib, numpy, optuna, PIL.Image, PIL.ImageFile
import torch, transformers
import gradio, pytorch_lightning, requests  # which change things of their own accord
from omegaconf.basecontainer import BaseContainer
PIL.Image.init()

def state():
    loader = hydra._internal.hydra.ConfigLoaderImpl
    loggers = {name: (one.level, list(one.handlers)) for name in logging.root.manager.loggerDict
               for one in [logging.getLogger(name)] if not name.startswith("captioning")}
    return {
        "resolvers": dict(BaseContainer._resolvers),
        "hydra": (loader, loader.load_configuration, hydra.main, hydra.compose),
        "warnings": list(warnings.filters), "environment": dict(os.environ),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "loggers": {key: loggers[key] for key in ("pytorch_lightning", "transformers", "optuna")},
        "verbosity": (transformers.logging.get_verbosity(), optuna.logging.get_verbosity()),
        "pillow": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES),
        "formats": sorted(PIL.Image.OPEN), "extensions": dict(PIL.Image.EXTENSION),
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
                  torch.get_float32_matmul_precision(),
                  torch.are_deterministic_algorithms_enabled()),
        "random": (random.getstate(), torch.initial_seed(), str(numpy.random.get_state())),
        "numpy": (numpy.geterr(), numpy.get_printoptions()),
        "matplotlib": (dict(matplotlib.rcParams), matplotlib.get_backend()),
        "process": (os.getcwd(), list(sys.path), sys.excepthook, sys.getrecursionlimit(),
                    signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT),
                    socket.getdefaulttimeout(), os.umask(0o22)),
    }

before = state()
import captioning, hydra_plugins.captioning_sweeper
for one in pkgutil.walk_packages(captioning.__path__, "captioning."):
    if one.name != "captioning.output.onnx_script":  # for an exported folder
        importlib.import_module(one.name)
after = state()
print([key for key in before if before[key] != after[key]])
"""


@pytest.mark.slow
def test_importing_any_module_changes_nothing_in_the_process():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr
