"""Run a fit: what stops it early becomes a sentence or an exit code. Report its scores."""

import logging
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from captioning import UserError
from captioning.config.hydra_arguments import as_typed
from captioning.metrics.score_table import format_score
from captioning.training.safety import EXIT_CODE, FiniteLoss, OutOfMemory, Preemption
from captioning.training.validation import LastStep, ValidationCaptions, find_callback

WARNINGS = (  # of Lightning, which do not apply
    "The '.*dataloader' does not have many workers",  # batches are gathered, not loaded
    "The number of training batches .* is smaller than the logging interval",
    ".*exists and is not empty",  # a run's folder holds everything
    ".*LeafSpec",  # Lightning's own use of a torch function that has moved
    ".*callbacks used to create the checkpoint need to be provided",  # of another monitor
    "It is recommended to use .*sync_dist=True",  # scores are gathered before they are logged
    "Glyph .* missing from font",  # of curves.png, for a folder's name
)


def default_callbacks(folder: str) -> list[pl.Callback]:
    """Return the callbacks that every run has."""
    return [FiniteLoss(folder), OutOfMemory(), LastStep(), Preemption(folder)]


def fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    ckpt_path: str | None,
    resume_command: Callable[[], str],
) -> None:
    """Train to the end. `resume_command()` says how to go on, should the run stop before.

    Raises UserError for a disk too small, lack of memory and a dead data worker; SystemExit after
    SIGTERM (143) and Ctrl-C (130).
    """
    check_disk_space(Path(trainer.default_root_dir), module)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        if find_callback(trainer, Preemption).stop_requested:  # in the last validation
            raise SIGTERMException(EXIT_CODE)
    except (MisconfigurationException, ValueError) as error:
        if not re.search("limit_.*_batches|val_check_interval", str(error)):
            raise
        text = " ".join(str(error).replace("`", "").split())
        raise UserError(f"the trainer cannot start: {text}") from error
    except (RuntimeError, MemoryError) as error:
        memory = find_callback(trainer, OutOfMemory)
        if memory.advice:
            command = f"type {memory.override} name=NEW"  # the jobs of a sweep share a config
            if resume_command is build_resume_command:
                command = f"{build_resume_command(memory.override)} goes on"
            raise UserError(memory.advice + f"; {command}" * bool(memory.override)) from error
        if "DataLoader worker" in str(error):
            raise UserError(
                f"a DataLoader worker died ({str(error).splitlines()[0]}), as a rule killed for "
                f"its memory; {resume_command()} goes on"
            ) from error
        raise
    except SystemExit as stop:  # Lightning raises it for Ctrl-C, too
        saved = isinstance(stop, SIGTERMException)
        text = "\nstopped and saved" if saved else "\nstopped"
        text += ":\n  {}" if resume_command is build_resume_command else "; {} goes on"
        print(text.format(resume_command()), file=sys.stderr)
        raise SystemExit(EXIT_CODE if saved else 130) from None


def check_disk_space(folder: Path, module: pl.LightningModule) -> None:
    """Raise UserError if the checkpoints of a run will not fit on its disk."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    # best.ckpt, last.ckpt and one being written: a parameter and AdamW's two moments, in float32
    needed, free = 3 * 12 * parameters, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the checkpoints of {parameters:,} weights take {needed / 1e9:,.2f} GB, and {folder} "
            f"has {free / 1e9:,.2f} GB left; make room, or name another disk with "
            "hydra.run.dir=FOLDER"
        )


def build_resume_command(override: str = "") -> str:
    """Return the command that resumes this process's run in its own folder, with `override`.

    Until it has a checkpoint, it goes on from the one that was typed, if any.
    """
    config = HydraConfig.get()
    folder = config.runtime.output_dir
    own = [override] * bool(override) + [f"hydra.run.dir={folder}"]
    overrides = [*config.overrides.task, *config.overrides.hydra]
    if Path(folder, "last.ckpt").exists() or not any("ckpt_path=" in each for each in overrides):
        own.append("ckpt_path=last")
    replaced = tuple(f"{each.partition('=')[0]}=" for each in [*own, "hydra.mode="])
    overrides = [each for each in overrides if not each.startswith(replaced)] + own
    return shlex.join(["python", "-m", "captioning.train", *map(as_typed, overrides)])


def filter_lightning_warnings() -> None:
    """Hide Lightning's WARNINGS and its log below the level of a warning."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def report(trainer: pl.Trainer, best: str | None) -> None:
    """Print the scores of `best`, or of the last epoch, five captions, and where files are."""
    captions_callback = find_callback(trainer, ValidationCaptions)
    generated = ValidationCaptions.of(trainer) if captions_callback else []
    if not trainer.is_global_zero:
        return
    scores = {key: value for key, value in trainer.callback_metrics.items() if key[:4] == "val/"}
    if scores:
        print(f"\nscores of {best or 'the last epoch'} on the val split, x100 (not loss, words):")
    for key, value in sorted(scores.items()):
        print(f"  {key.removeprefix('val/'):30} {format_score(key, float(value)):>6}")
    if generated:
        print("\ncaptions:")
    for record, caption, _ in generated[:: max(1, len(generated) // 5)][:5]:
        print(f"  {record.path}\n    {caption}")
    saved = [each.best_model_path for each in trainer.checkpoint_callbacks if each.best_model_path]
    print(f"\ncheckpoint: {shlex.quote(best or next(iter(saved), 'none'))}")
    gallery = Path(trainer.default_root_dir, "gallery.html")
    if gallery.exists():
        print(f"gallery:    {gallery}")
