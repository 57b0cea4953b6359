"""Faults in a process: at its n-th write it is killed, or the disk is full or broken.

`inject` replaces what Python writes files by. All writes in the watched folder are noted in a log,
so that an undisturbed process shows where the others can be hit.
"""

import builtins
import errno
import io
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

CALLS = ("replace", "rename", "unlink", "remove", "mkdir", "truncate", "posix_fallocate")


class Fault(NamedTuple):
    """`kind` at write number `at`, from 1; for limit, the bytes that a file can have.

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
        half = content[: len(content) // 2]
        self.watch.count_write("write", self.path, lambda: self.file.write(half))
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
    """Counts the writes and reads below `root`, notes them in `log`, and makes the fault happen."""

    def __init__(self, root, log, fault):
        self.root, self.fault = f"{os.path.abspath(root)}/", fault or Fault("", 0)
        self.log = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        self.writes = self.reads = 0

    def count_write(self, call, path, half=lambda: None):
        """Count a write, which may meet the fault; `half` does a part of it."""
        if not self.is_watched(path):
            return
        self.writes += 1
        os.write(self.log, f"{self.writes}\t{call}\t{path}\n".encode(errors="replace"))
        kind, at = self.fault
        if kind == "full" and self.writes >= at and call not in ("unlink", "remove", "rename"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if self.writes != at:
            return
        if kind == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if kind in ("torn", "cut"):
            with suppress(OSError):  # mkdir of a folder whose parent is missing
                half()
        if kind in ("killed", "torn", "cut"):
            os.kill(os.getpid(), signal.SIGKILL)

    def count_read(self, path):
        if self.is_watched(path):
            self.reads += 1
            os.write(self.log, f"{self.reads}\tread\t{path}\n".encode(errors="replace"))
            if self.fault == ("unread", self.reads):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def is_watched(self, path):
        return isinstance(path, str | Path) and os.path.abspath(path).startswith(self.root)


def inject(root, log, fault=None):
    """Watch this process from now on."""
    if fault and fault.kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, fault.at))
    watch = Watch(root, log, fault)
    io_open, flush, os_open = io.open, np.memmap.flush, os.open

    def watched_open(path, mode="r", *arguments, **options):
        if not watch.is_watched(path) or not set(mode) & set("wax+"):
            watch.count_read(path)
            return io_open(path, mode, *arguments, **options)
        watch.count_write("open", path, lambda: io_open(path, mode, *arguments, **options).close())
        return File(io_open(path, mode, *arguments, **options), path, watch)

    def watched_os_open(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            watch.count_write("create", path)
        return os_open(path, flags, *arguments, **options)

    def watched_flush(self):
        watch.count_write("flush", self.filename, lambda: flush(self))
        return flush(self)

    def watched(name, function):
        def call(path, *arguments, **options):
            # Half of a call is the call, and no return from it.
            watch.count_write(name, path, lambda: function(path, *arguments, **options))
            return function(path, *arguments, **options)

        return call

    builtins.open = io.open = watched_open
    os.open = watched_os_open
    np.memmap.flush = watched_flush
    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))
