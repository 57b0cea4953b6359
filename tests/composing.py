"""A config, composed as the verbs do."""

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from captioning.config.compose import CONF, checked_configs


def composed(*overrides, config="config"):
    with checked_configs(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose_for_verb(config, overrides)


def compose_for_verb(config, overrides):
    """Compose within a context that Hydra is initialized in."""
    cfg = compose(config, overrides=list(overrides), return_hydra_config=True)
    cfg.hydra.runtime.output_dir = "somewhere"
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]  # as a verb gets it
    return cfg
