"""Socket operations and sendfile() beside those of asyncio's own loop."""

import asyncio
import hashlib
import io
import socket
import sys

import pytest
from support.loops import not_uvloop, with_loop
from support.protocols import Recorder, connected
from support.side_by_side import check

pytestmark = not_uvloop


@with_loop
async def test_no_bytes_are_a_datagram():
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        for data in (b"", b"x", bytearray()):
            await loop.sock_sendall(left, data)
        assert [await loop.sock_recv(right, 9) for _ in range(3)] == [b"", b"x", b""]


SOCKETS = ["pair", "unconnected", "datagram", "closed", "blocking", "with a timeout"]
CALLS = {
    "sock_recv": [(-1,), ("x",), (None,), (2**70,)],
    "sock_recv_into": [(b"read-only",), ("x",), (5,), (memoryview(bytearray(6))[::2],)],
    "sock_recvfrom": [(-1,), ("x",)],
    "sock_recvfrom_into": [(bytearray(5), 9), (bytearray(5), -1), (b"read-only",), (5,)],
    "sock_sendall": [(b"",), (bytearray(b"y"),), (memoryview(b"abcdef")[::2],), ("text",), (None,)],
    "sock_sendto": [(b"x", None), (b"x", 5), (b"x", ("127.0.0.1",)), ("text", ("127.0.0.1", 9))],
    "sock_connect": [(("127.0.0.1",),), (("127.0.0.1", "x"),), (5,), (None,), (("127.0.0.1", 99999),), (b"x",)],
    "sock_accept": [()],
    "sock_sendfile": [(io.BytesIO(b"x"),), (io.StringIO("x"),), (5,)],
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("kind", SOCKETS)
@pytest.mark.parametrize("debug", [False, True])
def test_wrong_arguments_and_sockets(method, kind, debug):
    async def scenario(loop, notes):
        for arguments in CALLS[method]:
            sock, other = socket.socketpair()
            if kind != "pair":
                sock.close()
                sock = socket.socket(type=socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
            if kind == "with a timeout":
                sock.settimeout(5)
            else:
                sock.setblocking(kind == "blocking")
            if kind == "closed":
                sock.close()
            await notes.wait(getattr(loop, method)(sock, *arguments))
            sock.close()
            other.close()
        # The position of a file whose sending was refused is of no interest here.
        for call in CALLS["sock_sendfile"][:2]:
            call[0].seek(0)

    check(scenario, debug)


class Proxied(socket.socket):
    """A socket with methods of its own: what SOCKS clients give to a program."""

    def recv(self, *args):
        return b"its own " + super().recv(*args)

    def send(self, data, *args):
        return super().send(bytes(data)[:3], *args)


class Standing:
    """No socket, but what a test takes for one."""

    def __init__(self, sock):
        self.sock = sock

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def recv(self, size):
        return b"x" * size

    def recv_into(self, buffer):
        buffer[:] = b"y" * len(buffer)
        return len(buffer)

    def send(self, data):
        return len(data)


def test_methods_of_a_sockets_class_are_called():
    async def scenario(loop, notes):
        left, right = socket.socketpair()
        with right, Proxied(fileno=left.detach()) as proxied:
            for sock in (right, proxied):
                sock.setblocking(False)
            await loop.sock_sendall(proxied, b"much more than three")
            notes(await loop.sock_recv(right, 100))
            await loop.sock_sendall(right, b"answer")
            notes(await loop.sock_recv(proxied, 100))
            waiting = asyncio.ensure_future(loop.sock_recv(proxied, 100))
            await asyncio.sleep(0)
            await loop.sock_sendall(right, b"later")
            notes(await waiting)
            standing, buffer = Standing(proxied), bytearray(3)
            notes(await loop.sock_recv(standing, 3), await loop.sock_recv_into(standing, buffer), buffer)
            notes(await loop.sock_sendall(standing, b"abc"))
        for wrong in (5, None, "text"):
            await notes.wait(loop.sock_recv(wrong, 5))
            await notes.wait(loop.sock_recv_into(wrong, bytearray(5)))
            await notes.wait(loop.sock_sendall(wrong, b"x"))

    assert check(scenario)[1] == "b'its own answer'"


CONTENT = bytes(range(256)) * 500
RANGES = [
    (),
    (0,),
    (100,),
    (100, 50),
    (0, 0),
    (0, -1),
    (-1,),
    (10**7,),
    (0, 10**7),
    ("x",),
    (0, "x"),
    (0, 1.5),
    (0, None),
]


class Pieces:
    """No file, but what has read()."""

    mode = "rb"

    def __init__(self):
        self.pieces = [b"abc", b"def", b""]

    def read(self, size):
        return self.pieces.pop(0)


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "content"
    made.write_bytes(CONTENT)
    return made


async def collect(loop, sock, digest):
    while data := await loop.sock_recv(sock, 1 << 16):
        digest.update(data)


async def note_sending(loop, notes, file, send, fallback):
    """What send(arguments) does for each range, what arrives and where the file stands then."""
    for arguments in RANGES:
        file.seek(7)
        notes("range", arguments, fallback)
        received = await send(file, *arguments, fallback=fallback)
        notes(received, file.tell())


@pytest.mark.parametrize("fallback", [True, False])
def test_ranges_of_sock_sendfile(path, fallback):
    async def scenario(loop, notes):
        async def send(file, *arguments, **options):
            left, right = socket.socketpair()
            left.setblocking(False)
            right.setblocking(False)
            digest = hashlib.md5()
            reading = asyncio.ensure_future(collect(loop, right, digest))
            await notes.wait(loop.sock_sendfile(left, file, *arguments, **options))
            left.close()
            await asyncio.wait_for(reading, 20)
            right.close()
            return digest.hexdigest()

        with path.open("rb") as file:
            await note_sending(loop, notes, file, send, fallback)
        for odd in (io.BytesIO(b"hello"), Pieces(), path.open(encoding="latin-1"), path.open("rb", buffering=0), 5):
            notes(type(odd).__name__)
            notes(await send(odd, fallback=fallback))
            if hasattr(odd, "close"):
                odd.close()

    check(scenario)


@pytest.mark.parametrize("fallback", [True, False])
def test_ranges_of_sendfile(path, fallback):
    async def scenario(loop, notes):
        async def send(file, *arguments, before=b"", **options):
            protocol, peer = await connected()
            peer.setblocking(False)
            digest = hashlib.md5()
            reading = asyncio.ensure_future(collect(loop, peer, digest))
            protocol.transport.write(before)
            await notes.wait(loop.sendfile(protocol.transport, file, *arguments, **options))
            notes(protocol.transport.is_closing(), protocol.transport.is_reading())
            notes(protocol.transport.get_protocol() is protocol)
            protocol.transport.write(b"after it")
            protocol.transport.close()
            await asyncio.wait_for(reading, 20)
            await protocol.until_event("lost")
            peer.close()
            return digest.hexdigest()

        with path.open("rb") as file:
            await note_sending(loop, notes, file, send, fallback)
            file.seek(0)
            notes(await send(file, before=b"much" * 500_000, fallback=fallback))
        for odd in (io.BytesIO(b"hello"), path.open(encoding="latin-1"), 5):
            notes(type(odd).__name__)
            notes(await send(odd, fallback=fallback))

    check(scenario)


def test_sendfile_holds_up_what_is_written(path):
    """Also when a second one was refused meanwhile: its bytes would come between the file's."""

    async def scenario(loop, notes):
        path.write_bytes(CONTENT * 100)
        protocol, peer = await connected()
        transport = protocol.transport
        with peer, path.open("rb") as file, path.open("rb") as other:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await asyncio.sleep(0.01)
            for _ in range(2):
                notes.call(transport.write, b"x")
                if sys.version_info >= (3, 12):
                    notes.call(transport.writelines, [b"x"])
                with pytest.raises((RuntimeError, KeyError)):
                    await loop.sendfile(transport, other)
            notes(sending.done(), transport.is_reading(), transport.get_protocol() is protocol)
            sending.cancel()
            await asyncio.wait([sending])
            notes(transport.is_reading())
            notes.call(transport.write, b"x")
            transport.abort()
            await protocol.until_event("lost")

    assert "raised RuntimeError unable to write; sendfile is in progress" in check(scenario)


@pytest.mark.parametrize("how", ["closing", "aborted", "paused"])
@pytest.mark.parametrize("fallback", [True, False])
def test_sendfile_in_states_of_the_transport(path, how, fallback):
    async def scenario(loop, notes):
        protocol, peer = await connected(lambda: Recorder())
        transport = protocol.transport
        {"closing": transport.close, "aborted": transport.abort, "paused": transport.pause_reading}[how]()
        with peer, path.open("rb") as file:
            await notes.wait(loop.sendfile(transport, file, 0, 50, fallback=fallback))
            notes(transport.is_closing(), transport.is_reading(), file.tell())
            transport.abort()
            await protocol.until_event("lost")

    check(scenario)
