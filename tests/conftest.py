"""Fixtures that every test may use."""

import signal
from collections.abc import Iterator
from itertools import count

import pytest
from support import Connection, ServerProcess, control
from support.server import Control

_keys = count(1)

# Servers that the tests start inherit what is ignored here: under nohup that would be the SIGHUP they are to act on.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server with every app of tests/asgi/apps by its path, shared by all tests that do not end it."""
    with ServerProcess("apps:app", "--log-level", "info") as running:
        yield running
        assert running.process.poll() is None, f"the server died:\n{running.log.text}"


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[Connection]:
    """A fresh connection to the shared server."""
    with server.connect() as opened:
        yield opened


@pytest.fixture
def apps(server: ServerProcess) -> Control:
    """Events and values shared with the apps of the shared server."""
    return control(server)


@pytest.fixture
def key() -> str:
    """A name for events that no other test uses."""
    return f"k{next(_keys)}"
