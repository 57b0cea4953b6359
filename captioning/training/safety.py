"""Callbacks that end a run well: a loss that is not finite, memory that is too small, SIGTERM."""

import gc
import shlex
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from captioning import UserError
from captioning.features.batches import Batch
from captioning.features.gpu import copy_to_host
from captioning.training.validation import ValidationCaptions, find_callback, validate_this_epoch

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # SLURM's --signal can be either
EXIT_CODE = 128 + signal.SIGTERM
# How torch reports it on a CPU. On a GPU the error has a class of its own, except from cuBLAS.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


class FiniteLoss(pl.Callback):
    """Raises UserError for a loss that is not finite, and saves its batch as not-finite.pt.

    On a GPU nothing waits for the loss: it is checked in the next step, and the last one of an
    epoch before validation. The weights in the file are then those after the update.
    """

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self._pending: tuple[int, Batch, Callable[[], Tensor]] | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, _: Any, batch: Batch, index: int) -> None:
        """Check the loss of the step before."""
        self._check(trainer)
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, _: Any, loss: Tensor) -> None:
        """Check the loss at once on a CPU; on a GPU, start copying it to the host."""
        self._pending = trainer.global_step, self._batch, copy_to_host(loss.detach().float())
        if not loss.is_cuda:
            self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Check the last loss of an epoch, before any checkpoint is saved."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        if self._pending is None:
            return
        (step, batch, get_loss), self._pending = self._pending, None
        loss = get_loss()
        if torch.isfinite(loss):
            return
        # Each process has its own part of the batch, and its own file.
        rank = f"-{trainer.global_rank}" if trainer.global_rank else ""
        path = self.folder / f"not-finite{rank}.pt"
        content = {"loss": float(loss), "epoch": trainer.current_epoch, "step": step}
        content |= {"batch": batch._asdict(), "state_dict": trainer.lightning_module.state_dict()}
        trainer.lightning_module.on_save_checkpoint(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        raise UserError(
            f"the loss is {float(loss)} in epoch {trainer.current_epoch}, step {step}; try a lower "
            "training.learning_rate, trainer.gradient_clip_val=1, or trainer.precision=32-true and "
            f"go on from last.ckpt. To replay the batch: python -m captioning.replay "
            f"{shlex.quote(str(path))}"
        )


class OutOfMemory(pl.Callback):
    """After an out-of-memory error: `advice` is a sentence, `override` a setting that fits."""

    def __init__(self) -> None:
        self.advice = self.override = ""
        self._in_batch = False

    def on_train_batch_start(self, *_: Any) -> None:
        """A batch, which may be too large, begins."""
        self._in_batch = True

    def on_train_batch_end(self, *_: Any) -> None:
        """The batch fits."""
        self._in_batch = False

    on_validation_batch_start = on_train_batch_start
    on_validation_batch_end = on_train_batch_end

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Find the batch size that fits, while the model is still on its device."""
        if not is_out_of_memory(exception):
            return
        traceback.clear_frames(exception.__traceback__)  # they hold the step's tensors
        module.zero_grad()
        reason = (str(exception).strip() or type(exception).__name__).splitlines()[0]
        data, captions = trainer.datamodule, find_callback(trainer, ValidationCaptions)
        key, size, note = "datamodule.batch_size", data.batch_size // 2, "takes less"
        if data.resident and not self._in_batch:  # between the steps, only these take much
            key, size = "datamodule.resident", "false"
        elif captions and not self._in_batch:
            key, size = "callbacks.captions.batch_size", captions.batch_size // 2
        elif trainer.world_size == 1:  # or the other processes would have to try, too
            size, note = largest_fitting_batch(trainer), "fits, tried with the longest captions"
        self.override = f"{key}={size}" if size else ""
        if not size:
            note = "no smaller batch fits: shorten the longest captions or take a smaller model"
        self.advice = f"{module.device} is out of memory ({reason}); {self.override} {note}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, on a GPU or CPU, or Python lacks memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


def largest_fitting_batch(trainer: pl.Trainer) -> int | None:
    """Halve the batch size until steps with the longest captions fit in memory; return it.

    None if not even two captions fit. Afterwards the module logs nothing any more.
    """
    module, data = trainer.lightning_module, trainer.datamodule
    loaders = data.train_dataloader(), data.val_dataloader()
    size = min(data.batch_size, len(loaders[0].dataset))
    module.log = lambda *_, **__: None  # outside of its loop, Lightning's raises an error
    module.train()  # the error may come from validation, and cuDNN trains in this mode only
    while (size := size // 2) > 1:
        gc.collect()
        torch.cuda.empty_cache()  # does nothing where no GPU was used
        batches = [loader.dataset[loader.sampler.longest_captions(size)] for loader in loaders]
        try:
            with trainer.precision_plugin.forward_context(), torch.enable_grad():
                train, val = map(trainer.strategy.batch_to_device, batches)
                module.training_step(train).backward()
                if not any(each.state for each in trainer.optimizers):  # the first step makes it
                    _ = [torch.zeros_like(weight) for weight in 2 * [*module.parameters()]]
            with trainer.precision_plugin.forward_context(), torch.no_grad():
                module.validation_step(val)
            return size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        finally:
            module.zero_grad()
    return None


class Preemption(pl.Callback):
    """Ends the run at the next batch after SIGTERM or SIGUSR1, with last.ckpt in `folder`.

    During a validation it waits for the end of the epoch, which saves last.ckpt: Lightning's own
    handler would break off the validation, which cannot be resumed, and save nothing. If one
    process gets the signal, all end, a batch later, as none waits for the others' answers.
    """

    def __init__(self, folder: str):
        self.last = Path(folder) / "last.ckpt"
        self.stop_requested = False

    def on_fit_start(self, *_: Any) -> None:
        """Handle the signals; Lightning restores the handlers after the fit."""
        self._get_decision = lambda: False
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._request_stop)

    on_train_start = on_fit_start  # again: meanwhile Lightning has installed its own handler

    def on_fit_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Agree once more: the last batch's answer was not read, and validation came after it."""
        self._must_stop(self._ask_all(trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save and end within an epoch; its last batch is followed by validation and a save."""
        is_last = trainer.should_stop or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        get_decision = self._ask_all(trainer)
        if trainer.world_size > 1:
            get_decision, self._get_decision = self._get_decision, get_decision
        if self._must_stop(get_decision) and not is_last:
            trainer.save_checkpoint(self.last)
            raise SIGTERMException(EXIT_CODE)
        if self.stop_requested:
            validate_this_epoch(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """End between two epochs, if the one before was validated and saved."""
        every = trainer.check_val_every_n_epoch
        if self._must_stop(self._ask_all(trainer)) and every and trainer.current_epoch % every == 0:
            raise SIGTERMException(EXIT_CODE)

    def _request_stop(self, *_: Any) -> None:
        self.stop_requested = True

    def _ask_all(self, trainer: pl.Trainer) -> Callable[[], Tensor | bool]:
        """Return a function that waits for what the processes say: whether one has to stop."""
        requested = self.stop_requested
        if trainer.world_size == 1:
            return lambda: requested
        requests = torch.full((), float(requested), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(requests)
        return copy_to_host(requests)

    def _must_stop(self, get_decision: Callable[[], Tensor | bool]) -> bool:
        decision = bool(get_decision())
        # A signal that arrives meanwhile is not overwritten, and counts next time.
        self.stop_requested = self.stop_requested or decision
        return decision
