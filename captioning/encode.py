"""Encode a data set's images: `python -m captioning.encode data=folder data.root=DIR`.

The feature store that it builds is the one that training with the same data and encoder opens.
Any number of processes, started by torchrun or as jobs of a launcher, divide the images.
"""

from __future__ import annotations

import math
import os
import sys
import time

import hydra
from omegaconf import DictConfig

from captioning.config.cli import check_device, run_command
from captioning.config.compose import CONF, checked_configs, resolve_config
from captioning.config.hydra_arguments import hydra_arguments
from captioning.config.trust import check_write_paths


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="encode", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run one process of an encoding."""
    run_command(encode, cfg)


def encode(cfg: DictConfig) -> None:
    """Encode what no other process has taken, wait for the others, print the store's folder."""
    from captioning.config.build import build
    from captioning.features.datamodule import load_records, open_store
    from captioning.features.store_building import PER_SHARD

    start = time.monotonic()
    config = resolve_config(cfg)
    check_write_paths(config)
    device = choose_device(config["device"])
    source = build(config["data"], "data")
    source.prepare()
    records = load_records(source)
    per_shard, world_size = PER_SHARD, int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
    if world_size > 1:  # four shards per process, so that a fast one takes over from a slow one
        per_shard = min(PER_SHARD, math.ceil(len(records) / (4 * world_size)))
    records, store = open_store(
        records,
        build(config["encoder"], "encoder"),
        config["features_root"],
        device,
        source.skip_unreadable,
        batch_size=config["batch_size"],
        per_shard=config["per_shard"] or per_shard,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        seconds = time.monotonic() - start
        shape = " x ".join(map(str, store.shape[1:]))
        print(f"{store.folder}: {len(records):,} images, {shape} each, after {seconds:.1f} s")


def choose_device(name: str) -> str:
    """Return this process's device. Raises UserError for a GPU that torch does not find."""
    import torch

    gpus = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    check_device(name)
    if name == "cuda":  # a GPU for each of this machine's processes
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % gpus}"
    return name


if __name__ == "__main__":
    sys.argv[1:] = run_command(hydra_arguments, sys.argv[1:], "encode", "data.root")
    main()
