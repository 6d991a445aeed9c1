"""create_connection() and create_unix_connection(): every argument."""

import asyncio
import contextlib
import errno
import gc
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.loops import with_loop


class Greeter(asyncio.Protocol):
    """Tells each client where it comes from."""

    def connection_made(self, transport):
        transport.write(repr(transport.get_extra_info("peername")).encode())
        transport.close()


class Collector(asyncio.Protocol):
    def __init__(self):
        self.data = b""
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.done.set_result(self.data)


@asynccontextmanager
async def greeting(host: str = "127.0.0.1") -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.get_running_loop().create_server(Greeter, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


def resolve(monkeypatch, addresses: list[tuple[str, int]]) -> None:
    """Have the name `example.test` stand for these addresses, in this order."""
    original = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host != "example.test":
            return original(host, port, *args, **kwargs)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, number))
            for address, number in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@with_loop
async def test_by_address_and_by_name():
    loop = asyncio.get_running_loop()
    async with greeting() as (host, port):
        for where in ((host, port), (host, str(port)), ("localhost", port)):
            family = socket.AF_INET if where[0] == "localhost" else 0
            transport, protocol = await loop.create_connection(Collector, *where, family=family)
            own = transport.get_extra_info("sockname")
            assert transport.get_extra_info("peername") == (host, port)
            assert await protocol.done == repr(own).encode()


@with_loop
async def test_a_connected_socket():
    loop = asyncio.get_running_loop()
    async with greeting() as address:
        sock = socket.create_connection(address)
        _, protocol = await loop.create_connection(Collector, sock=sock)
        assert await protocol.done


@with_loop
async def test_a_local_address():
    loop = asyncio.get_running_loop()
    async with greeting() as address:
        port = free_port()
        for local in (("127.0.0.2", 0), ("127.0.0.1", port)):
            transport, protocol = await loop.create_connection(Collector, *address, local_addr=local)
            own = transport.get_extra_info("sockname")
            assert own[0] == local[0] and local[1] in (0, own[1])
            assert await protocol.done == repr(own).encode()
        with pytest.raises(OSError, match=r"203\.0\.113\.1"):
            await loop.create_connection(Collector, *address, local_addr=("203.0.113.1", 0))


def test_several_addresses(loop, monkeypatch):
    """The first that works, in the order of the resolver."""

    async def main():
        async with greeting() as (host, port):
            resolve(monkeypatch, [("127.0.0.1", free_port()), ("127.0.0.1", free_port()), (host, port)])
            for options in ({}, {"happy_eyeballs_delay": 0.25}, {"happy_eyeballs_delay": 0.25, "interleave": 1}):
                _, protocol = await loop.create_connection(Collector, "example.test", port, **options)
                assert await protocol.done

    loop.run_until_complete(main())


def test_happy_eyeballs(loop, monkeypatch):
    """An address that does not answer holds the next one up no longer than asked."""

    async def main():
        full = socket.socket()  # with a backlog that is used up: whoever connects waits
        waiting = []
        with full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                sock = socket.socket()
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(full.getsockname())
                waiting.append(sock)
            async with greeting() as (host, port):
                resolve(monkeypatch, [full.getsockname(), (host, port)])
                connecting = loop.create_connection(Collector, "example.test", port, happy_eyeballs_delay=0.01)
                _, protocol = await asyncio.wait_for(connecting, 20)
                assert await protocol.done
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(loop.create_connection(Collector, "example.test", port), 0.3)
        for sock in waiting:
            sock.close()

    loop.run_until_complete(main())


def test_interleaving_families(loop, monkeypatch):
    """With happy eyeballs the families take turns."""
    tried = []

    async def main():
        resolve(monkeypatch, [("::1", free_port()), ("::1", free_port()), ("127.0.0.1", free_port())])
        original = loop.sock_connect

        async def sock_connect(sock, address):
            tried.append(sock.family)
            await original(sock, address)

        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        for options in ({"interleave": 1}, {"interleave": 2}):
            with pytest.raises(OSError):
                await loop.create_connection(
                    asyncio.Protocol, "example.test", 80, happy_eyeballs_delay=0.001, **options
                )

    loop.run_until_complete(main())
    six, four = socket.AF_INET6, socket.AF_INET
    if socket.has_ipv6 and six in tried:
        assert tried == [six, four, six, six, six, four]


def test_all_errors(loop, monkeypatch):
    async def main():
        ports = [free_port(), free_port()]
        resolve(monkeypatch, [("127.0.0.1", port) for port in ports])
        with pytest.raises(OSError, match="Multiple exceptions") as raised:
            await loop.create_connection(asyncio.Protocol, "example.test", 80)
        assert all(str(port) in str(raised.value) for port in ports)
        if sys.version_info >= (3, 12):
            with pytest.raises(ExceptionGroup) as group:
                await loop.create_connection(asyncio.Protocol, "example.test", 80, all_errors=True)
            assert [type(error) for error in group.value.exceptions] == [ConnectionRefusedError] * 2

    loop.run_until_complete(main())


@with_loop
async def test_an_error_names_the_address():
    loop = asyncio.get_running_loop()
    port = free_port()
    with pytest.raises(ConnectionRefusedError) as raised:
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
    assert raised.value.errno == errno.ECONNREFUSED
    assert "127.0.0.1" in str(raised.value) and str(port) in str(raised.value)
    with pytest.raises(socket.gaierror):
        await loop.create_connection(asyncio.Protocol, "no-such-name.invalid", 80)


@with_loop
async def test_an_error_leaves_no_cycle():
    """But asyncio's own: the future of sock_connect() knows the error that it raised."""
    loop = asyncio.get_running_loop()
    error = None
    try:
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", free_port())
    except OSError as raised:
        error = raised
    assert not [other for other in gc.get_referrers(error) if isinstance(other, (list, tuple, dict))]


@with_loop
async def test_wrong_arguments():
    loop = asyncio.get_running_loop()
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for arguments, options in (
            ((asyncio.Protocol,), {}),
            ((asyncio.Protocol, "127.0.0.1", 80), {"sock": stream}),
            ((asyncio.Protocol,), {"sock": datagram}),
            ((asyncio.Protocol, "127.0.0.1", 80), {"server_hostname": "x"}),
            ((asyncio.Protocol, "127.0.0.1", 80), {"ssl_handshake_timeout": 1}),
            ((asyncio.Protocol, "127.0.0.1", 80), {"ssl_shutdown_timeout": 1}),
        ):
            with pytest.raises(ValueError):
                await loop.create_connection(*arguments, **options)
    with pytest.raises(TypeError):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 80, no_such_argument=1)


@with_loop
async def test_cancelling_a_connection():
    """No socket is left behind; a ResourceWarning would fail the test."""
    loop = asyncio.get_running_loop()
    async with greeting() as address:
        for turns in range(6):
            connecting = asyncio.ensure_future(loop.create_connection(Collector, *address))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                transport, _ = await connecting
                transport.abort()
        await asyncio.sleep(0.01)


@with_loop
async def test_a_protocol_factory_that_fails():
    loop = asyncio.get_running_loop()

    def fail():
        raise ZeroDivisionError

    async with greeting() as address:
        with pytest.raises(ZeroDivisionError):
            sock = socket.create_connection(address)
            try:
                await loop.create_connection(fail, sock=sock)
            finally:
                sock.close()


@with_loop
async def test_unix_connections(tmp_path: Path):
    loop = asyncio.get_running_loop()
    path = tmp_path / "server"
    server = await loop.create_unix_server(Greeter, path)
    _, protocol = await loop.create_unix_connection(Collector, str(path))
    assert await protocol.done == b"''"
    _, protocol = await loop.create_unix_connection(Collector, path)
    assert await protocol.done
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    _, protocol = await loop.create_unix_connection(Collector, sock=sock)
    assert await protocol.done
    server.close()
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_connection(Collector, tmp_path / "nobody")
    for arguments, options in (((), {}), ((path,), {"sock": sock}), ((path,), {"server_hostname": "x"})):
        with pytest.raises(ValueError):
            await loop.create_unix_connection(Collector, *arguments, **options)
    with socket.socket() as wrong, pytest.raises(ValueError):
        await loop.create_unix_connection(Collector, sock=wrong)


@with_loop
async def test_setsockopt_on_the_socket_of_a_transport():
    loop = asyncio.get_running_loop()
    async with greeting() as address:
        transport, protocol = await loop.create_connection(Collector, *address)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        await protocol.done
