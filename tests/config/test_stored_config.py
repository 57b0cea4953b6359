"""A run that goes on: the checkpoint's config, but for what is typed, and for paths."""

from pathlib import Path

import pytest
from composing import compose_for_verb
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from captioning import UserError
from captioning.checkpoint import read_checkpoint
from captioning.config.compose import CONF, checked_configs, resolve_config
from captioning.config.schema import check_config
from captioning.config.stored_config import resumed_config, typed_keys
from captioning.config.trust import check_hydra

VERSION_1 = Path(__file__).parents[1] / "checkpoints" / "version_1"
GREEDY = "{_target_: captioning.search.beam.greedy_search, _partial_: true, max_length: 3}"
FIRST = ["model=transformer", "model.hidden_dim=64", "training=risk", "data=folder", "data.root=x"]
FIRST += ["encoder.name=resnet18", "text_encoder=minilm", "search=sample", "rerank=neighbours"]
FIRST += ["trainer.max_steps=9", "datamodule.batch_size=7", "name=mine", "callbacks.best=null"]
FIRST += [
    "+callbacks.early={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: x}",
    "seed=3",
]


def resumed(*typed, **changes):
    """Return the first start's config, with `changes`, and that of the run that goes on."""
    with checked_configs(), initialize_config_dir(str(CONF), version_base="1.3"):
        stored = resolve_config(compose_for_verb("config", FIRST)) | changes
        cfg = compose("config", ["ckpt_path=x", *typed], return_hydra_config=True)
        cfg.hydra.runtime.output_dir = "somewhere"
        HydraConfig.instance().set_config(cfg)
        resumed_config(cfg, stored, typed_keys(typed))
        check_hydra(cfg, typed)
        with open_dict(cfg):
            del cfg["hydra"]
        return stored, resolve_config(cfg)


@pytest.mark.parametrize(
    "first",
    [
        [],
        ["~trainer.gradient_clip_val", "~training.warmup", "~callbacks.gallery"],
        ["callbacks.run_folder.monitor=val/loss", f"callbacks.captions.search={GREEDY}"],
    ],
)
def test_what_is_not_typed_is_the_checkpoints(monkeypatch, first):
    monkeypatch.setitem(globals(), "FIRST", FIRST + first)
    stored, config = resumed()
    assert config == stored | {"ckpt_path": "x"}
    check_config(config)


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("trainer.max_epochs=20", "trainer.max_epochs", 20),
        ("training.risk_epochs=2", "training.risk_epochs", 2),  # which the default has not
        ("seed=0", "seed", 0),  # the default
        ("model.hidden_dim=256", "model.hidden_dim", 256),
        ("model=lstm", "model._target_", "captioning.models.lstm.LSTMDecoder"),
        ("model=lstm", "model.heads", None),
        ("search=greedy", "callbacks.captions.search.max_length", 20),
        ("search=greedy", "callbacks.captions.search.samples", None),
        ("data=folder data.root=y", "data.root", "y"),
        ("experiment=flickr8k_best", "training.risk_epochs", 5),
        ("experiment=seed", "model.hidden_dim", 256),  # the default, in its file
        ("experiment=seed", "model.heads", None),
        ("experiment=seed", "seed", 3),
        ("callbacks.best.monitor=val/loss", "callbacks.best.monitor", "val/loss"),
        ("name=other", "name", "other"),
    ],
)
def test_what_is_typed_wins(typed, key, value):
    _, config = resumed(*typed.split())
    assert OmegaConf.select(OmegaConf.create(config), key) == value


def test_no_path_to_write_to_and_no_logger_is_the_checkpoints():
    other = "callbacks.x={_target_: captioning.web.gallery.Gallery, folder: /elsewhere, images: 1}"
    FIRST.append(f"+{other}")
    try:
        stored, config = resumed(
            run_dir="/elsewhere",
            logger={"wandb": {"_target_": "pytorch_lightning.loggers.WandbLogger"}},
            datamodule={
                "_target_": "captioning.features.datamodule.CaptionDataModule",
                "features_root": "/features",
            },
        )
    finally:
        FIRST.pop()
    assert stored["callbacks"]["x"]["folder"] == "/elsewhere"
    assert config["callbacks"]["x"] | {"folder": "somewhere"} == config["callbacks"]["x"]
    assert "/elsewhere" not in str(config)
    assert config["datamodule"]["features_root"] == "/features"  # which train refuses, untyped
    assert config["logger"].keys() == {"csv"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"_target_": "os.system"}}, "_target_=os.system is not a class"),
        ({"data": {"_target_": "captioning.web.gallery.Gallery"}}, "is not a class of captioning"),
        ({"seed": "${oc.env:HOME}"}, "seed=.*HOME.: a checkpoint may not say that; type seed=…"),
        ({"name": "../../../../../x"}, "hydra.run.dir=.* lies outside the working folder"),
        ({"name": {"x": "../../../../../../x"}}, "hydra.run.dir=.* lies outside the working"),
        ({"name": "latest"}, "name=latest: that leads to the newest run"),
        (
            {"callbacks": {"x": {"_target_": "pytorch_lightning.loggers.WandbLogger"}}},
            "callbacks.x._target_=.*WandbLogger: a checkpoint may not",
        ),
    ],
)
def test_what_a_stranger_may_not_name_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        resumed(**changes)


@pytest.mark.parametrize("path", sorted(VERSION_1.glob("*.ckpt")), ids=lambda path: path.stem)
def test_a_checkpoint_of_version_1_goes_on(path):
    stored = read_checkpoint(path)["captioning"]["config"]
    _, config = resumed(**stored)
    check_config(config)
    assert config["model"] == stored["model"]
    assert config["callbacks"]["best"]["_target_"].endswith("BestCheckpoint")
