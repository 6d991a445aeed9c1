"""Fixtures that every test may use."""

import signal
from collections.abc import Iterator
from itertools import count

import pytest
from support import Connection, ServerProcess, control
from support.server import Control, SharedServers

_keys = count(1)

# Servers that the tests start inherit what is ignored here: under nohup that would be the SIGHUP they are to act on.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def servers() -> Iterator[SharedServers]:
    """Servers that tests share who neither end them nor count what they hold."""
    shared = SharedServers()
    yield shared
    shared.close()


@pytest.fixture
def server(servers: SharedServers) -> Iterator[ServerProcess]:
    """The shared server with every app of tests/asgi/apps by its path."""
    with servers.lend("apps:app", "--log-level", "info") as running:
        yield running


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
