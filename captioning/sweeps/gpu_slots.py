"""Give each of several jobs on one machine a GPU of its own, by CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

_held: list[FileLock] = []  # for the life of the process


@cache
def take_slot(slots: int, sweep: str) -> int:
    """Return a slot that no other living process has, 0 to `slots` - 1, and show its GPU only.

    A process that dies frees its slot. One that has used a GPU cannot change to another.
    """
    import torch

    folder = Path(tempfile.gettempdir()) / f"captioning-slots-{os.getuid()}" / sweep
    folder.mkdir(parents=True, exist_ok=True)
    for slot in range(slots if slots > 0 else os.cpu_count() or 1):
        lock = FileLock(folder / f"{slot}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        _held.append(lock)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        return slot
    raise RuntimeError(f"all {slots} slots in {folder} are taken")
