"""Servers for the libraries, a real PostgreSQL and a real Redis on free ports; and how a test runs on the loop."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loops import loop, reports

__all__ = ["loop", "reports"]


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_accepting(port: int, process: subprocess.Popen[bytes], log: Path, says: str) -> None:
    """Wait until a server that was just started takes connections, and says in its log that it serves them."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            if says in log.read_text(errors="replace"):
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{process.args} does not serve:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on the loop under test, 60 s at most."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    return run


@pytest.fixture(scope="session")
def unprivileged() -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder for a server's data, and what Popen needs to start that server as no root: they refuse to be."""
    folder = Path(tempfile.mkdtemp(prefix="bolide-libraries-"))
    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        options = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")
    yield folder, options
    shutil.rmtree(folder, ignore_errors=True)


def find_postgresql(name: str) -> str | None:
    """A program of PostgreSQL's server: Debian keeps them off the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(versions[-1]) if versions else shutil.which(name)


@pytest.fixture(scope="session")
def postgresql(unprivileged: tuple[Path, dict[str, Any]]) -> Iterator[int]:
    """The port of a PostgreSQL with a superuser `bolide` and a database `postgres`, no password."""
    initdb, server = find_postgresql("initdb"), find_postgresql("postgres")
    if initdb is None or server is None:
        pytest.skip("there is no PostgreSQL server (Debian: postgresql)")
    folder, options = unprivileged
    data, log = folder / "postgresql", folder / "postgresql.log"
    command = [initdb, "--auth=trust", "--username=bolide", "--no-sync", "--encoding=UTF8", f"--pgdata={data}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **options)
    port = free_port()
    settings = [
        f"port={port}",
        "listen_addresses=127.0.0.1",
        f"unix_socket_directories={folder}",
        "fsync=off",
        "lc_messages=C",
    ]
    arguments = [part for setting in settings for part in ("-c", setting)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [server, "-D", str(data), *arguments],
            stdout=output,
            stderr=output,
            cwd=folder,
            **options,
        )
    wait_accepting(port, process, log, "ready to accept connections")
    yield port
    process.send_signal(2)
    process.wait(30)


@pytest.fixture(scope="session")
def redis_port(unprivileged: tuple[Path, dict[str, Any]]) -> Iterator[int]:
    """The port of a Redis that keeps nothing."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("there is no redis-server (Debian: redis-server)")
    folder, options = unprivileged
    port, log = free_port(), folder / "redis.log"
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **options)
    wait_accepting(port, process, log, "eady to accept connections")
    yield port
    process.terminate()
    process.wait(30)
