"""Datagram endpoints beside those of asyncio's own loop: arguments, addresses, what is sent and told after the end."""

import asyncio
import pathlib
import re
import socket

import pytest
from support.loops import not_uvloop, with_loop
from support.side_by_side import check

pytestmark = not_uvloop


class Noting(asyncio.DatagramProtocol):
    """Notes what it is told, as it comes."""

    def __init__(self, notes):
        self.notes = notes
        self.lost = asyncio.get_running_loop().create_future()
        self.received = asyncio.Queue()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.notes("received", data, type(addr).__name__)
        self.received.put_nowait((data, addr))

    def error_received(self, exc):
        self.notes("error", type(exc).__name__, str(exc))

    def connection_lost(self, exc):
        self.notes("lost", exc)
        self.lost.set_result(exc)


UNIX = {"family": socket.AF_UNIX}
LOCAL = ("127.0.0.1", 0)
ENDPOINTS = [
    *({}, {"family": socket.AF_INET}, {"family": socket.AF_INET6}, UNIX, {"family": 999}, {"family": "x"}),
    *({"local_addr": address} for address in ("127.0.0.1", ("127.0.0.1",), ("127.0.0.1", 0, 0), 5, (), list(LOCAL))),
    *({"local_addr": address} for address in (("", 0), (None, 0), (b"127.0.0.1", 0), ("1.2.3.4", 0))),
    *({"local_addr": ("127.0.0.1", port)} for port in (70000, -1, "http", None, 1.5)),
    {"local_addr": LOCAL, "remote_addr": ("::1", 5)},
    {"local_addr": LOCAL, "remote_addr": ("127.0.0.1", 5)},
    {"remote_addr": ("127.0.0.1", 9), "family": socket.AF_INET6},
    *({"remote_addr": address} for address in (("127.0.0.1", 0), "x", ("fe80::1%nowhere", 9))),
    {"remote_addr": ("255.255.255.255", 9)},
    {"remote_addr": ("255.255.255.255", 9), "allow_broadcast": True},
    {"local_addr": LOCAL, "proto": socket.IPPROTO_TCP},
    {"local_addr": ("localhost", 0), "flags": socket.AI_NUMERICHOST},
    *({"local_addr": LOCAL, keyword: True} for keyword in ("reuse_port", "allow_broadcast", "reuse_address", "other")),
    *({"sock": kind} for kind in ("blocking", "stream", "closed", 5)),
    *({"sock": "datagram", **more} for more in ({"local_addr": LOCAL}, {"family": 2}, {"proto": 17}, {"flags": 1})),
    *({"sock": "datagram", **more} for more in ({"reuse_port": True}, {"reuse_port": False}, {"allow_broadcast": 1})),
    *(UNIX | {"local_addr": path} for path in ("D/a", "D/a", "D/file", b"D/b", "x" * 200, "", "a\0b", LOCAL)),
    *(UNIX | {"local_addr": path} for path in (pathlib.Path("D/p"), "\0bolide-tests", b"\0bolide-tests")),
    *(UNIX | {"remote_addr": path} for path in ("D/none", "D/bound", "")),
    UNIX | {"local_addr": "D/c", "remote_addr": "D/bound"},
    UNIX | {"local_addr": "D/c", "remote_addr": 5},
]


def made_here(value, folder):
    """The argument that is meant: names and sockets of this run."""
    kinds = {"blocking": socket.SOCK_DGRAM, "datagram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}
    if value in ("blocking", "stream", "closed", "datagram"):
        sock = socket.socket(socket.AF_INET, kinds.get(value, socket.SOCK_DGRAM))
        sock.setblocking(value == "blocking")
        if value == "closed":
            sock.close()
        return sock
    if isinstance(value, pathlib.Path):
        return folder / value.name
    if isinstance(value, bytes):
        return value.replace(b"D/", bytes(folder) + b"/")
    return value.replace("D/", f"{folder}/") if isinstance(value, str) else value


@pytest.mark.parametrize("arguments", ENDPOINTS, ids=repr)
def test_endpoints(arguments, tmp_path_factory):
    async def scenario(loop, notes):
        folder = tmp_path_factory.mktemp("d")
        folder.joinpath("file").touch()
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bound.bind(str(folder / "bound"))
        made = {name: made_here(value, folder) for name, value in arguments.items()}
        try:
            transport, protocol = await loop.create_datagram_endpoint(lambda: Noting(notes), **made)
        except Exception as error:
            notes(type(error).__name__, str(error).replace(str(folder), "D"), getattr(error, "errno", None))
        else:
            sock = transport.get_extra_info("socket")
            notes(type(sock).__name__, sock.family, sock.type, sock.proto, sock.gettimeout())
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_BROADCAST):
                notes(sock.getsockopt(socket.SOL_SOCKET, option))
            for name in ("sockname", "peername"):
                address = repr(transport.get_extra_info(name)).replace(str(folder), "D")
                notes(name, re.sub(r", \d+", ", PORT", address))
            transport.close()
            await asyncio.wait_for(protocol.lost, 20)
        finally:
            bound.close()
            if isinstance(made.get("sock"), socket.socket):
                made["sock"].close()
        notes(sorted(path.name for path in folder.iterdir()))

    check(scenario)


WRONG = [
    *[(b"x", None), (b"x",), ("text", "peer"), (5, "peer"), (None, "peer"), (b"x", "127.0.0.1"), (b"x", 5)],
    *[(b"x", ("127.0.0.1",)), (b"x", ("127.0.0.1", 99999)), (b"x", ("127.0.0.1", 0)), (b"x", ("127.0.0.1", -1))],
    *[(b"x", ("::1", 5)), (b"x", (None, 5)), (b"x", ["127.0.0.1", 9]), (b"x" * 70_000, "peer")],
    *[(b"x", ("255.255.255.255", 9)), (bytearray(b"ba"), "peer"), (memoryview(b"mvx")[1:], "peer")],
]


@pytest.mark.parametrize("is_connected", [False, True])
@pytest.mark.parametrize("is_closed", [False, True])
def test_what_is_sent(is_connected, is_closed):
    async def scenario(loop, notes):
        _, peer = await loop.create_datagram_endpoint(lambda: Noting(lambda *_: None), LOCAL)
        address = peer.transport.get_extra_info("sockname")
        remote = {"remote_addr": address} if is_connected else {"local_addr": LOCAL}
        for data, *to in WRONG:
            arrived = []
            notes("sendto", data if len(data if isinstance(data, bytes) else b"") < 9 else "much", to)
            transport, protocol = await loop.create_datagram_endpoint(lambda: Noting(notes), **remote)
            if is_closed:
                transport.close()
            try:
                transport.sendto(data, *(address if value == "peer" else value for value in to))
            except (TypeError, ValueError) as error:
                notes(type(error).__name__, str(error).replace(str(address[1]), "PORT"))
            # Behind it, for the first to have come: by the same way, which keeps the order.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"last", address)
            while (received := await asyncio.wait_for(peer.received.get(), 20))[0] != b"last":
                arrived.append(received[0])
            transport.abort()
            await asyncio.wait_for(protocol.lost, 20)
            notes(arrived)
        peer.transport.close()
        await peer.lost

    check(scenario)


@pytest.mark.parametrize("ends", ["close", "abort"])
def test_the_repr_of_one_that_ends(ends):
    async def scenario(loop, notes):
        transport, protocol = await loop.create_datagram_endpoint(lambda: Noting(notes), LOCAL)
        notes(transport)
        getattr(transport, ends)()
        notes(transport)
        await protocol.lost
        notes(transport)
        transport.set_protocol(protocol)
        notes(transport, transport.is_closing())

    check(scenario)


def receive(sock):
    """What has come, without waiting."""
    sock.setblocking(False)
    try:
        return sock.recv(100)
    except BlockingIOError:
        return None


@pytest.mark.parametrize("moment", ["before connection_lost()", "after it"])
@with_loop
async def test_what_is_sent_late_gets_into_no_other_connection(moment):
    """Descriptors that the transport has given back are soon another's."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Noting(lambda *_: None), LOCAL)
    done = loop.create_future()

    def send():
        pairs = []
        for _ in range(5):
            with socket.create_server(LOCAL) as listening:
                pairs += [socket.create_connection(listening.getsockname()), listening.accept()[0]]
        if moment == "after it":
            transport.set_protocol(protocol)
        try:
            transport.sendto(b"late", address)
        except (AttributeError, OSError):  # asyncio's, which has no loop any more
            assert moment == "after it"
        done.set_result([received for sock in pairs if (received := receive(sock))])
        for sock in pairs:
            sock.close()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"x", transport.get_extra_info("sockname"))
        _, address = await asyncio.wait_for(protocol.received.get(), 20)
        if moment == "before connection_lost()":
            loop.call_soon(send)
            transport.abort()
        else:
            transport.abort()
            await protocol.lost
            loop.call_soon(send)
        assert await asyncio.wait_for(done, 20) == []
