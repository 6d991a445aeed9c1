"""Connections that are opened, used once and kept: what each of them adds to the memory of a server."""

import base64
import os
import resource
import socket
import time
from collections.abc import Callable

from .process import Process, ProcessError

HOST = "127.0.0.1"
FEW = 200  # connections that come and go first, so that what is made once is there


def echo(client: socket.socket) -> None:
    """One message to an echo server, and back."""
    message = bytes(1024)
    client.sendall(message)
    _receive(client, lambda received: len(received) == len(message))


def exchange(client: socket.socket) -> None:
    """One request on a connection that stays open."""
    _ask(client, b"Accept: */*", b"Hello, world!")


def upgrade(client: socket.socket, extensions: bytes = b"") -> None:
    """Make it a WebSocket."""
    key = base64.b64encode(os.urandom(16))
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key
    received = _ask(client, fields + extensions, b"\r\n\r\n")
    if not received.startswith(b"HTTP/1.1 101 "):
        raise ProcessError(f"refused a WebSocket: {received[:32]!r}")


def upgrade_compressed(client: socket.socket) -> None:
    """The same, offering what browsers do."""
    upgrade(client, b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")


def allow(count: int) -> None:
    """Let this process, and those that it starts, have so many connections, if the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 500)), hard))


def open_connections(port: int, count: int, begin: Callable[[socket.socket], None]) -> list[socket.socket]:
    """`count` connections, with each of which `begin` has been done. Raises ProcessError."""
    clients = []
    try:
        for _ in range(count):
            clients.append(socket.create_connection((HOST, port), 5))
            begin(clients[-1])
    except (OSError, ProcessError) as error:
        for client in clients:
            client.close()
        raise ProcessError(f"connection {len(clients)}: {error}") from None
    return clients


def kibibytes(server: Process, port: int, count: int, begin: Callable[[socket.socket], None]) -> float:
    """Resident KiB that each of `count` connections adds which are idle after `begin`. Raises ProcessError."""
    for client in open_connections(port, FEW, begin):
        client.close()
    time.sleep(0.3)
    before = server.resident_bytes()
    clients = open_connections(port, count, begin)
    after = server.resident_bytes()
    for client in clients:
        client.close()
    server.check()
    return (after - before) / 1024 / count


def _ask(client: socket.socket, fields: bytes, end: bytes) -> bytes:
    """Send a GET with these header fields; what comes back, up to `end`."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: idle\r\n" + fields + b"\r\n\r\n")
    return _receive(client, lambda received: received.endswith(end))


def _receive(client: socket.socket, complete: Callable[[bytes], bool]) -> bytes:
    received = b""
    while not complete(received):
        piece = client.recv(65536)
        if not piece:
            raise ProcessError("the server closed a connection early")
        received += piece
    return received
