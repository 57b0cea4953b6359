"""What is typed after a verb: keys, values and config files that a training could be given."""

import pytest
import yaml
from composing import composed
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from captioning import UserError
from captioning.config.build import build
from captioning.config.compose import checked_configs, resolve_config
from captioning.config.schema import check_config
from captioning.config.trust import check_write_paths

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SEEDS = [
    b"model=lstm trainer.max_epochs=3",
    b"model.hidden_dim=256 model.dropout=0.4 seed=3 monitor=val/loss",
    b"training.learning_rate=1e-3 training.warmup=0.1 datamodule.batch_size=64",
    b"+model.num_layers=2 search=beam search.width=5 +mode=max",
    b"search=consensus search.utility.path=captioning.metrics.consensus.rouge_utility",
    b"callbacks.gallery=null ~callbacks.progress data=scenes data.images=100 trainer.gpus=0",
    b"encoder.features=grid encoder.image_size=224 logger=tensorboard",
    b"trainer.devices=[0,1] name=x/y callbacks.best.dirpath=outputs/x",
    b"data.root=${oc.env:FLICKR8K,x} hydra.run.dir=outputs/${name}",
]


def test_overrides(fuzz):
    def read(data):
        try:
            with checked_configs():
                config = resolve_config(composed(*data.decode("utf-8", "replace").split(" ")))
        except HydraException as error:
            raise UserError(str(error)) from None
        check_config(config)
        check_write_paths(config)
        build(config["data"])

    fuzz("overrides", SEEDS, read, 100)


def test_nodes(fuzz):
    """The signature says what may be: whatever else a node holds is a sentence."""
    seeds = [
        b"{_target_: captioning.models.merge.MergeDecoder, hidden_dim: 8, dropout: 0.5}",
        b"{_target_: captioning.search.beam.beam_search, _partial_: true, width: 5, groups: 1}",
        b"{_target_: captioning.data.scenes.Scenes, root: x, images: 1200, seed: 0}",
        b"{_target_: pytorch_lightning.callbacks.LearningRateMonitor, logging_interval: epoch}",
        b"{_target_: hydra.utils.get_method, path: captioning.metrics.consensus.cider_utility}",
    ]
    more = {"vocabulary_size": 9, "feature_dim": 5}

    def read(data):
        try:
            node = OmegaConf.create(yaml.safe_load(data.decode("utf-8", "replace")) or {})
        except Exception:
            raise UserError("not YAML") from None
        if not isinstance(node, DictConfig):
            raise UserError("not a mapping")
        build(resolve_config(node), **(more if "MergeDecoder" in str(node.get("_target_")) else {}))

    fuzz("nodes", seeds, read, 1000)
