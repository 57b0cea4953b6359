"""Where a number comes from: command, commit, versions, hardware and seed."""

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
PASSWORD = re.compile(r"(://[^:/@\s]*):\S*@")  # of a database's URL


def provenance(device: torch.device) -> dict[str, Any]:
    """Describe this process in plain types; `seed` is that of `seed_everything`, or None."""
    commit, dirty = git_state(Path(__file__).parent)
    seed = os.environ.get("PL_GLOBAL_SEED")
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "command": PASSWORD.sub(r"\1:***@", shlex.join(["python", *sys.orig_argv[1:]])),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version()} | versions,
        "hardware": {"device": device_name(device), "torch_threads": torch.get_num_threads()},
        "seed": int(seed) if seed else None,
    }


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a folder's checkout and whether the tree differs, in new files too.

    Both are None for a folder that git does not track, such as a package installed inside someone's
    checkout.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.check_output(  # noqa: S603
            command, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()

    try:
        if not git("ls-files"):
            return None, None
        return git("rev-parse", "--verify", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def device_name(device: torch.device) -> str:
    """Return the model name of a GPU or processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8", errors="replace") if cpuinfo.exists() else ""
    name = re.search(r"^model name\s*: *(.+)", text, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()
