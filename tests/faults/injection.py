"""Faults in a process: at its n-th write it is killed, or told that the disk is full or broken.

`Fault.inject` patches what Python writes by; the process notes every write of the folder that is
watched, so that an undisturbed one says where the others can be hit.
"""

import builtins
import errno
import io
import os
import resource
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np

NAMES = ("replace", "rename", "unlink", "remove", "mkdir", "truncate", "posix_fallocate")


class Fault(NamedTuple):
    """`kind` at write number `at`, from 1; of limit, the bytes a file can have.

    killed: before the write. torn: half of it is done. cut: killed, and what was written last is
    shortened. full: this write and all that follow. broken: this one only. unread: opening to read.
    """

    kind: str
    at: int

    def __str__(self):
        return f"{self.kind} at {self.at}"


class File:
    """A file whose writes count."""

    def __init__(self, file, path, watch):
        self.__dict__.update(file=file, path=path, watch=watch)

    def write(self, content):
        self.watch.reach("write", self.path, lambda: self.file.write(content[: len(content) // 2]))
        return self.file.write(content)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __iter__(self):
        return iter(self.file)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)


class Watch:
    """Counts the writes below `root`, notes them in `log`, and lets the fault happen."""

    def __init__(self, root, log, fault):
        self.root, self.fault = f"{os.path.abspath(root)}/", fault
        self.log = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        self.writes = self.reads = 0

    def reach(self, what, path, half=lambda: None):
        """Come to a write; `half` does a part of it."""
        if not self.is_watched(path):
            return
        self.writes += 1
        os.write(self.log, f"{self.writes}\t{what}\t{path}\n".encode(errors="replace"))
        kind, at = self.fault or ("", 0)
        if kind == "full" and self.writes >= at and what not in ("unlink", "remove", "rename"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if self.writes != at:
            return
        if kind == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if kind in ("torn", "cut"):
            half()
        if kind in ("killed", "torn", "cut"):
            os.kill(os.getpid(), signal.SIGKILL)

    def open_to_read(self, path):
        if self.is_watched(path):
            self.reads += 1
            os.write(self.log, f"{self.reads}\tread\t{path}\n".encode(errors="replace"))
            if self.fault and self.fault.kind == "unread" and self.reads == self.fault.at:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def is_watched(self, path):
        return isinstance(path, str | Path) and os.path.abspath(path).startswith(self.root)


def inject(root, log, fault=None):
    """Watch this process from now on."""
    if fault and fault.kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, fault.at))
    watch = Watch(root, log, fault)
    opened, flush, os_open = io.open, np.memmap.flush, os.open

    def faulty_open(path, mode="r", *arguments, **options):
        if not watch.is_watched(path) or not set(mode) & set("wax+"):
            watch.open_to_read(path)
            return opened(path, mode, *arguments, **options)
        watch.reach("open", path, lambda: opened(path, mode, *arguments, **options).close())
        return File(opened(path, mode, *arguments, **options), path, watch)

    def faulty_os_open(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            watch.reach("create", path)
        return os_open(path, flags, *arguments, **options)

    def faulty_flush(self):
        watch.reach("flush", self.filename, lambda: flush(self))
        return flush(self)

    builtins.open = io.open = faulty_open
    os.open = faulty_os_open
    np.memmap.flush = faulty_flush
    for name in NAMES:
        setattr(os, name, faulty(watch, name, getattr(os, name)))


def faulty(watch, name, function):
    def call(path, *arguments, **options):
        # Half of a call is the call, and no return from it.
        watch.reach(name, path, lambda: function(path, *arguments, **options))
        return function(path, *arguments, **options)

    return call
