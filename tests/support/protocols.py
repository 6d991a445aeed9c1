"""Protocols that record what the transport does with them, and pairs of connected ones."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any


class Recorder(asyncio.Protocol):
    """Keeps what it is told, and wakes who waits for it."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.events: list[Any] = []
        self.data = bytearray()
        self.lost: Any = "not lost"
        self.keep_open = False
        self._changed: asyncio.Event = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._note("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._note("data")

    def eof_received(self) -> bool:
        self._note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self._note("lost")

    def _note(self, event: Any) -> None:
        if event != "data" or not self.events or self.events[-1] != "data":
            self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[["Recorder"], Any]) -> None:
        """Wait for what `condition` says; 20 s at most."""
        async with asyncio.timeout(20):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def until_event(self, event: str) -> None:
        await self.until(lambda self: event in self.events)

    async def until_received(self, count: int) -> None:
        await self.until(lambda self: len(self.data) >= count)


class Keeper(Recorder):
    """Keeps each object that it is handed, as it was handed."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        super().data_received(data)


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """The same as a BufferedProtocol."""

    def __init__(self, size: int = 4096) -> None:
        super().__init__()
        self.buffer = bytearray(size)
        self.hints: list[int] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))


async def connected(make: Callable[[], Recorder] = Recorder) -> tuple[Recorder, socket.socket]:
    """A protocol on one end of a TCP connection, and the plain, blocking socket of the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _, protocol = await asyncio.get_running_loop().create_connection(make, *listening.getsockname())
        peer, _ = listening.accept()
    peer.settimeout(20)
    return protocol, peer


async def connected_pair(make: Callable[[], Recorder] = Recorder, kind: str = "tcp") -> tuple[Recorder, Recorder]:
    """Two protocols, one on each end of a TCP connection or of a Unix socket pair."""
    loop = asyncio.get_running_loop()
    if kind == "unix":
        left, right = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            left = socket.create_connection(listening.getsockname())
            right, _ = listening.accept()
    _, first = await loop.create_connection(make, sock=left)
    _, second = await loop.create_connection(make, sock=right)
    return first, second


async def accepted(make: Callable[[], Recorder] = Recorder) -> tuple[Recorder, socket.socket]:
    """A protocol on the accepted end of a TCP connection, and the plain, non-blocking socket of the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        sock, _ = listening.accept()
    peer.setblocking(False)
    _, protocol = await asyncio.get_running_loop().connect_accepted_socket(make, sock)
    return protocol, peer


def receive_all(peer: socket.socket) -> bytes:
    """Read a blocking socket to its end."""
    data = bytearray()
    while piece := peer.recv(1 << 20):
        data += piece
    return bytes(data)


def drain(peer: socket.socket) -> None:
    """Read a blocking socket to its end, which may be a reset."""
    with contextlib.suppress(ConnectionResetError):
        receive_all(peer)


def reset(peer: socket.socket) -> None:
    """Close it with a reset instead of a FIN."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def closed(*protocols: Recorder) -> None:
    """Close the transports and wait for connection_lost()."""
    for protocol in protocols:
        protocol.transport.abort()
    for protocol in protocols:
        await protocol.until_event("lost")
