"""Fixtures of the WebSocket tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ServerProcess
from support.server import SharedServers

HERE = Path(__file__).parent


@pytest.fixture
def server(servers: SharedServers) -> Iterator[ServerProcess]:
    """The shared server with every app of ws_apps.py and of tests/asgi/apps."""
    with servers.lend("ws_apps:app", "--log-level", "info", app_dir=HERE) as running:
        yield running


@pytest.fixture
def serve():
    """Start a server of its own with more options: serve("--ws-max-size", "10")."""
    running: list[ServerProcess] = []

    def start(*options: str) -> ServerProcess:
        server = ServerProcess("ws_apps:app", *options, app_dir=HERE)
        running.append(server)
        return server.__enter__()

    yield start
    for server in running:
        server.__exit__(None)


@pytest.fixture
def serve_module():
    """Start a server of an app of this folder: serve_module("module:app")."""
    running: list[ServerProcess] = []

    def start(app: str, *options: str) -> ServerProcess:
        server = ServerProcess(app, *options, app_dir=HERE)
        running.append(server)
        return server.__enter__()

    yield start
    for server in running:
        server.__exit__(None)
