"""Jobs side by side on one machine: each process takes a slot, and with it a GPU of its own.

The number of slots enters; CUDA_VISIBLE_DEVICES leaves, before anything touches a GPU.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

_held: list[FileLock] = []  # for the life of the process


@cache
def take_slot(slots: int, sweep: str) -> int:
    """Return a slot that no other living process has, 0 to `slots` - 1, and see its GPU only.

    By a lock and not by the job's number: of two slow jobs none doubles up, and a worker that
    dies frees its GPU. Once a process has used a GPU it cannot change, so the slot stays its own.
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
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = seen.split(",") if seen else list(map(str, range(torch.cuda.device_count())))
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        return slot
    raise RuntimeError(f"all {slots} slots in {folder} are taken")
