"""Where a number comes from: the command, the commit, the versions and the hardware.

Nothing enters but the device; plain types leave, for run.json and whatever else reports a result.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "transformers", "hydra-core")


def provenance(device: torch.device) -> dict[str, Any]:
    """Describe this process, as far as it decides what comes out and how long it takes.

    `commit` and `dirty` are null where this package does not come from a git checkout; `seed` is
    what `seed_everything` was given, or null.
    """
    commit, dirty = git_state(Path(__file__).parent)
    seed = os.environ.get("PL_GLOBAL_SEED")
    return {
        "command": re.sub(  # never a database's password
            r"(://[^:/@\s]*):\S*@", r"\1:***@", shlex.join(["python", *sys.orig_argv[1:]])
        ),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "hardware": {
            "device": device_name(device),
            "torch_threads": torch.get_num_threads(),
        },
        "seed": int(seed) if seed else None,
    }


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a folder's checkout and whether anything in the tree differs from it.

    Files that git does not know count as a difference: a new model is one. Both are None for a
    folder that git does not track, such as an installed package inside someone's checkout.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files"):
            return None, None
        return git("rev-parse", "--verify", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def device_name(device: torch.device) -> str:
    """Return what the maker calls the processor or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if device.type == "cpu" and cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
