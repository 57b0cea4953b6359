"""A real PostgreSQL, on loopback, for as long as a test."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "only-the-tests-know-it"


@contextmanager
def postgresql():
    """Yield the storage's URL with its password; skip the test without PostgreSQL."""
    servers = [*Path("/usr/lib/postgresql").glob("*/bin/postgres"), shutil.which("postgres")]
    if not servers[0]:
        pytest.skip("PostgreSQL is not installed")
    programs = Path(servers[0]).resolve().parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = Path(tempfile.mkdtemp(prefix="captioning-postgres-"))
    (folder / "password").write_text(PASSWORD)
    # It refuses to run as root.
    user = {"user": "nobody", "extra_groups": []} if os.getuid() == 0 else {}
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, "nobody")
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **user}
    initdb = [programs / "initdb", "-D", folder / "data", "-U", "searcher", "--no-sync"]
    initdb += ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
    subprocess.run(initdb, check=True, **options)
    server = [programs / "postgres", "-D", folder / "data", "-F", "-h", "127.0.0.1"]
    server = subprocess.Popen([*server, "-p", port, "-k", folder], **options)
    url = f"postgresql+psycopg://searcher:{PASSWORD}@127.0.0.1:{port}/postgres"
    try:
        _wait_for(server, url)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=60)
        shutil.rmtree(folder)


def _wait_for(server, url):
    import psycopg

    for _ in range(600):
        assert server.poll() is None, "PostgreSQL did not start"
        try:
            psycopg.connect(url.replace("+psycopg", "")).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("PostgreSQL did not answer")
