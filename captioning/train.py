"""Train a captioner: `python -m captioning.train model=lstm trainer.gpus=1`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from captioning.config.cli import run_command
from captioning.config.compose import CONF, checked_configs, is_sweep_job, resolve_config
from captioning.config.hydra_arguments import hydra_arguments


@checked_configs()
@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run one training, or one job of a sweep; return the best value of `monitor`."""
    if is_sweep_job():
        return run_job(cfg)
    from captioning.training.run import train

    return run_command(lambda: train(resolve_config(cfg)))


def run_job(cfg: DictConfig) -> float | None:
    """Train in the job's folder, or go on there; bring the sweep's summary up to date."""
    config = HydraConfig.get()
    if config.mode == RunMode.MULTIRUN and "n_jobs" in config.launcher:
        from captioning.sweeps.gpu_slots import take_slot

        take_slot(config.launcher.n_jobs, str(os.getppid()))  # before anything uses a GPU
    from captioning.sweeps.jobs import resume_job
    from captioning.sweeps.summary import write_summary
    from captioning.training.run import train

    folder = Path(config.runtime.output_dir)
    # Unresolved, it does not depend on where the folder and the data are.
    stored = OmegaConf.to_container(cfg)
    try:
        return resume_job(folder, stored, lambda ckpt: train(resolve_config(cfg), ckpt_path=ckpt))
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on", file=sys.stderr)
        sys.exit(130)
    finally:
        write_summary(Path(config.sweep.dir))


if __name__ == "__main__":
    sys.argv[1:] = run_command(hydra_arguments, sys.argv[1:], "config")
    main()
