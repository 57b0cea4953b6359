"""Every config composes, and every node binds to the signature of what it names."""

import inspect

import pytest
from composing import composed
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from captioning.config.compose import CONF

GROUPS = [
    "data",
    "encoder",
    "model",
    "training",
    "search",
    "text_encoder",
    "trainer",
    "logger",
    "experiment",
]
GROUPS += ["sweep", "launcher"]
CHOICES = [
    f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))
]
# What is given where the object is made, not in YAML.
GIVEN = {
    "CaptionDataModule": ["source", "encoder"],
    "CaptioningModule": ["decoder", "contents"],
    "RiskModule": ["decoder", "contents"],
    "CiderReward": ["rows", "references"],
    "LSTMDecoder": ["vocabulary_size", "feature_dim"],
    "MergeDecoder": ["vocabulary_size", "feature_dim"],
    "AttentionDecoder": ["vocabulary_size", "feature_dim"],
    "UpDownDecoder": ["vocabulary_size", "feature_dim"],
    "TransformerDecoder": ["vocabulary_size", "feature_dim"],
    "beam_search": ["decoder", "features"],
    "greedy_search": ["decoder", "features"],
    "sample": ["decoder", "features"],
    "consensus_search": ["decoder", "features"],
    "NeighbourRerank": [],
}


def nodes(cfg, path=""):
    if isinstance(cfg, DictConfig):
        if "_target_" in cfg:
            yield path, cfg
        for key in cfg:
            if key != "hydra":
                yield from nodes(cfg._get_node(key), f"{path}.{key}")


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_binds(choice):
    assert bound(composed(choice)) >= 10


@pytest.mark.parametrize("choice", sorted((CONF / "tune").glob("*.yaml")), ids=lambda one: one.stem)
def test_every_search_composes_and_its_space_is_of_training(choice):
    cfg = composed(f"tune={choice.stem}", config="tune")
    assert bound(cfg.tune) == 2
    for key in cfg.tune.space:
        assert OmegaConf.select(composed(*cfg.tune.overrides), key) is not None


def test_encoding_composes_and_binds():
    assert bound(composed(config="encode")) == 2


def bound(cfg):
    found = 0
    for path, node in nodes(cfg):
        target = get_object(node._target_)
        arguments = {key: None for key in node if not key.startswith("_")}
        arguments |= dict.fromkeys(GIVEN.get(target.__name__, []))
        try:
            inspect.signature(target).bind(**arguments)
        except TypeError as error:
            raise AssertionError(f"{path}: {error}") from None
        found += 1
    return found


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_opens_with_a_comment(path):
    lines = [line for line in path.read_text().splitlines() if "@package" not in line]
    assert lines[0].startswith("# ")


def test_the_missions_command_composes():
    cfg = composed("model=lstm", "trainer.gpus=1")
    assert cfg.encoder.name == "resnet50"
    assert cfg.trainer.gpus == 1
