"""Encode pictures: `python -m captioning.encode data=folder data.root=DIR encoder=resnet50`.

A data set and a frozen encoder enter; the feature store that training will look for leaves. As
many processes as are started, by torchrun or as jobs of a launcher, divide the pictures.
"""

from __future__ import annotations

import os
import sys
import time

import hydra
from omegaconf import DictConfig

from captioning.config.cli import run_verb
from captioning.config.compose import CONF, checked_configs
from captioning.config.hydra_arguments import hydra_arguments
from captioning.config.trust import check_places


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="encode", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one process of an encoding."""
    run_verb(encode, cfg)


def encode(cfg: DictConfig) -> None:
    """Encode what no other process has taken, wait for the others, say what there is."""
    from captioning.config.build import build
    from captioning.config.compose import resolve_config
    from captioning.features.datamodule import open_store, split_records
    from captioning.features.store import PER_SHARD

    start = time.monotonic()
    config = resolve_config(cfg)
    check_places(config)
    device = device_of(cfg.device)
    source = build(config["data"], "data")
    source.prepare()
    records = split_records(source)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    # Four a process: who is done first takes from who is slow.
    share = -(-len(records) // (4 * world_size)) if world_size > 1 else PER_SHARD
    records, store = open_store(
        records,
        build(config["encoder"], "encoder"),
        cfg.features_root,
        device,
        source.skip_unreadable,
        batch_size=cfg.batch_size,
        per_shard=cfg.per_shard or min(PER_SHARD, share),
    )
    if int(os.environ.get("RANK", "0")) == 0:
        seconds = time.monotonic() - start
        shape = " x ".join(map(str, store.shape[1:]))
        print(f"{store.folder}: {len(records):,} pictures, {shape} each, after {seconds:.1f} s")


def device_of(name: str) -> str:
    """Return this process's device; raise UserError for a GPU that torch does not find."""
    import torch

    from captioning import UserError

    gpus = torch.cuda.device_count()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not gpus):
        raise UserError(
            f"device={name}: it is auto, cpu, or cuda where torch finds a GPU (it finds {gpus})"
        )
    if name == "cpu" or not gpus:
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % gpus}"


if __name__ == "__main__":
    sys.argv[1:] = hydra_arguments(sys.argv[1:], "encode", bare="data.root")
    main()
