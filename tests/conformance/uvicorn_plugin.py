"""A pytest plugin that puts bolide, behind a real socket, in the place of uvicorn's protocols.

uvicorn's tests drive a protocol object with a transport of their own. Here the protocol is a client connection to a
bolide server in a thread: what the tests feed goes out on it, and what comes back is what they find in the transport.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
import threading
import time

import pytest
from outcomes import Outcomes

import bolide

# A test that looks at what was written waits so long for the first bytes, and for more after some, in seconds; what
# fails has more patience the second time.
PATIENCE = float(os.environ.get("BOLIDE_SUITE_PATIENCE", "1"))
FIRST, MORE = 0.4 * PATIENCE, 0.06 * PATIENCE
STARTING = 30.0
# What the tests set in a Config of uvicorn's that means the same here, and its default there.
TAKEN = {
    "lifespan": "auto",
    "root_path": "",
    "ws_max_size": 16 * 1024 * 1024,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
    "ws_per_message_deflate": True,
    "ws_max_queue": 32,
    "headers": [],
    "server_header": True,
    "date_header": True,
    "proxy_headers": True,
    "limit_concurrency": None,
    "limit_max_requests": None,
    "timeout_keep_alive": 5,
    "interface": "auto",
}

running: list["Running"] = []
started = [0]


class Forward(logging.Handler):
    """Hands a record of one of bolide's loggers to uvicorn's of the same use, where the tests look."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and record.pathname.endswith(("bolide/server.py", "bolide/config.py")):
            return  # of the start, which the tests do not expect
        record.name = record.name.replace("bolide", "uvicorn")
        logging.getLogger(record.name).handle(record)


class Running:
    """A bolide server in a thread."""

    def __init__(self, app, **options) -> None:
        started[0] += 1
        options.setdefault("log_config", None)
        config = bolide.Config(app, host="127.0.0.1", port=options.pop("port", 0), **options)
        for use in ("access", "error"):
            logging.getLogger(f"bolide.{use}").propagate = False
        self.server = bolide.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        end = time.monotonic() + STARTING
        while not self.server.started:
            assert self.thread.is_alive() and time.monotonic() < end, "the server did not start"
            time.sleep(0.002)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        running.append(self)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(1.5 * PATIENCE)
        self.server.force_exit = True
        self.thread.join(5)


class Transport:
    """What the tests take for the transport: the bytes that came back."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.closed = False

    def settle(self, first: float) -> None:
        """Read until nothing comes any more."""
        wait = first
        while not self.closed and select.select([self.sock], [], [], wait)[0]:
            try:
                data = self.sock.recv(65536)
            except OSError:
                data = b""
            self.closed = not data
            self.data += data
            wait = MORE

    @property
    def buffer(self) -> bytes:
        self.settle(MORE if self.data else FIRST)
        return self.data

    def clear_buffer(self) -> None:
        self.settle(MORE)
        self.data = b""

    def is_closing(self) -> bool:
        self.settle(FIRST)
        return self.closed

    def get_protocol(self) -> None:
        return None


class Loop:
    """What the tests take for the loop of the protocol."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def run_one(self) -> None:
        await asyncio.to_thread(self.transport.settle, FIRST)

    def run_later(self, with_delay: float) -> None:
        time.sleep(with_delay + 0.3 * PATIENCE)
        self.transport.settle(FIRST)


class Protocol:
    """What the tests take for the protocol."""

    timeout_keep_alive_task = None

    def __init__(self, server: Running) -> None:
        self.server = server
        self.sock = socket.create_connection(("127.0.0.1", server.port), 30)
        self.transport = Transport(self.sock)
        self.loop = Loop(self.transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            self.transport.closed = True

    def eof_received(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def connection_lost(self, exc: object) -> None:
        self.sock.close()
        self.transport.closed = True

    def shutdown(self) -> None:
        self.server.stop()


def get_connected_protocol(app, protocol_class=None, lifespan=None, **options) -> Protocol:
    """In the place of the tests' function of this name."""
    if protocol_class is not None and protocol_class.__name__ == "H11Protocol":
        pytest.skip("about h11, which is not used here")
    options.pop("http", None)
    if options.get("ws") != "none":
        options.pop("ws", None)
    options.setdefault("log_level", "info")
    state = getattr(lifespan, "state", None)
    options["lifespan"] = "on" if state else "off"
    return Protocol(Running(with_state(app, state) if state else app, **options))


def with_state(app, state):
    """`app`, with a lifespan that puts `state` into the server's."""

    async def wrapped(scope, receive, send):
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        scope["state"].update(state)
        for _ in range(2):
            event = await receive()
            await send({"type": event["type"] + ".complete"})

    return wrapped


@contextlib.asynccontextmanager
async def run_server(config, sockets=None):
    """In the place of the tests' function of this name."""
    options = {
        name: getattr(config, name) for name, default in TAKEN.items() if getattr(config, name, default) != default
    }
    server = await asyncio.to_thread(lambda: Running(config.app, port=config.port, **options))

    class Handle:
        async def shutdown(self, *args: object) -> None:
            await asyncio.to_thread(server.stop)

    try:
        yield Handle()
    finally:
        await asyncio.to_thread(server.stop)


@pytest.fixture
def http_protocol_cls():
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    return HttpToolsProtocol


@pytest.fixture
def ws_protocol_cls():
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(autouse=True)
def _stop_servers():
    started[0] = 0
    yield
    for server in running:
        server.stop()
    running.clear()


def pytest_configure(config):
    import tests.conftest as theirs

    config.pluginmanager.register(Outcomes(is_apart=lambda: not started[0]))
    for use in ("access", "error"):
        logging.getLogger(f"bolide.{use}").addHandler(Forward())

    for name in ("http_protocol_cls", "ws_protocol_cls"):
        if hasattr(theirs, name):
            delattr(theirs, name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        for replacement in (get_connected_protocol, run_server):
            if hasattr(item.module, replacement.__name__):
                setattr(item.module, replacement.__name__, replacement)
