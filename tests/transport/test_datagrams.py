"""create_datagram_endpoint() and its transport."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from support.loops import not_uvloop, only_bolide, with_loop


class Datagrams(asyncio.DatagramProtocol):
    """Keeps what comes."""

    def __init__(self):
        self.received = asyncio.Queue()
        self.errors = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.put_nowait(exc)

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    async def next(self):
        return await asyncio.wait_for(self.received.get(), 20)


async def endpoint(**options) -> Datagrams:
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, **options)
    return protocol


async def endpoints() -> tuple[Datagrams, Datagrams]:
    """One that waits for datagrams, and one that sends to it."""
    server = await endpoint(local_addr=("127.0.0.1", 0))
    return server, await endpoint(remote_addr=name(server))


def name(protocol: Datagrams):
    return protocol.transport.get_extra_info("sockname")


@with_loop
async def test_the_last_word_to_a_peer_in_connection_lost():
    """As in asyncio: the socket is closed after that, and not before."""

    class Polite(Datagrams):
        def connection_lost(self, exc):
            self.transport.sendto(b"good-bye", self.peer)
            super().connection_lost(exc)

    _, server = await asyncio.get_running_loop().create_datagram_endpoint(Polite, local_addr=("127.0.0.1", 0))
    client = await endpoint(local_addr=("127.0.0.1", 0))
    client.transport.sendto(b"hello", name(server))
    _, server.peer = await server.next()
    server.transport.abort()
    assert (await client.next())[0] == b"good-bye"
    await server.lost
    assert server.errors.empty()
    client.transport.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_two_endpoints(loop, host):
    async def main():
        try:
            server = await endpoint(local_addr=(host, 0))
        except OSError:
            pytest.skip(f"there is no {host} here")
        client = await endpoint(remote_addr=name(server)[:2])
        assert client.transport.get_extra_info("peername")[:2] == name(server)[:2]
        client.transport.sendto(b"to")
        data, address = await server.next()
        assert (data, address[:2]) == (b"to", name(client)[:2])
        server.transport.sendto(b"back", address)
        assert (await client.next())[0] == b"back"
        client.transport.sendto(b"with address", client.transport.get_extra_info("peername"))
        assert (await server.next())[0] == b"with address"
        with pytest.raises(ValueError):
            client.transport.sendto(b"elsewhere", (host, 9))
        for end in (client, server):
            end.transport.close()
            assert end.transport.is_closing()
            assert await end.lost is None

    loop.run_until_complete(asyncio.wait_for(main(), 40))


@with_loop
async def test_sizes_and_kinds_of_data():
    server = await endpoint(local_addr=("127.0.0.1", 0))
    client = await endpoint(family=socket.AF_INET)
    for data in (b"x", bytearray(b"array"), memoryview(b"_view_")[1:5], bytes(65507)):
        client.transport.sendto(data, name(server))
        assert (await server.next())[0] == data
    for wrong in ("text", 5, None, [1]):
        with pytest.raises(TypeError):
            client.transport.sendto(wrong, name(server))
    client.transport.sendto(bytes(70_000), name(server))
    assert isinstance(await asyncio.wait_for(client.errors.get(), 20), OSError)
    client.transport.sendto(b"still there", name(server))
    assert (await server.next())[0] == b"still there"
    client.transport.close()
    server.transport.abort()


@with_loop
async def test_names_are_resolved():
    server = await endpoint(local_addr=("localhost", 0), family=socket.AF_INET)
    client = await endpoint(remote_addr=("localhost", name(server)[1]), family=socket.AF_INET)
    client.transport.sendto(b"x")
    assert (await server.next())[0] == b"x"
    client.transport.close()
    server.transport.close()


@with_loop
async def test_nobody_listens():
    with socket.socket(type=socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    client = await endpoint(remote_addr=address)
    client.transport.sendto(b"x")
    assert isinstance(await asyncio.wait_for(client.errors.get(), 20), ConnectionRefusedError)
    assert not client.transport.is_closing()
    client.transport.close()


@with_loop
async def test_reuse_port():
    first = await endpoint(local_addr=("127.0.0.1", 0), reuse_port=True)
    second = await endpoint(local_addr=name(first), reuse_port=True)
    with pytest.raises(OSError):
        await endpoint(local_addr=name(first))
    first.transport.close()
    second.transport.close()


@with_loop
async def test_allow_broadcast():
    for allow in (True, False, None):
        end = await endpoint(local_addr=("127.0.0.1", 0), allow_broadcast=allow)
        sock = end.transport.get_extra_info("socket")
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)) is bool(allow)
        end.transport.close()


@with_loop
async def test_a_socket_of_ones_own():
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    server = await endpoint(sock=sock)
    client = await endpoint(remote_addr=sock.getsockname())
    client.transport.sendto(b"x")
    assert (await server.next())[0] == b"x"
    client.transport.close()
    server.transport.close()


@with_loop
async def test_unix_datagrams(tmp_path: Path):
    server = await endpoint(local_addr=str(tmp_path / "server"), family=socket.AF_UNIX)
    client = await endpoint(
        local_addr=str(tmp_path / "client"), remote_addr=str(tmp_path / "server"), family=socket.AF_UNIX
    )
    client.transport.sendto(b"x")
    data, address = await server.next()
    assert (data, address) == (b"x", str(tmp_path / "client"))
    server.transport.sendto(b"y", address)
    assert (await client.next())[0] == b"y"
    client.transport.close()
    server.transport.close()


@with_loop
async def test_wrong_arguments():
    loop = asyncio.get_running_loop()
    with socket.socket() as stream:
        for options in (
            {},
            {"sock": stream},
            {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 9)},
            {"local_addr": "text"},
        ):
            with pytest.raises((ValueError, TypeError, OSError)):
                await loop.create_datagram_endpoint(Datagrams, **options)
    with pytest.raises(OSError):
        await loop.create_datagram_endpoint(Datagrams, local_addr=("203.0.113.1", 0))


@with_loop
async def test_a_receiver_that_fails():
    """It is reported; the endpoint goes on."""
    loop = asyncio.get_running_loop()
    problems = []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))

    class Fails(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"fail":
                raise ZeroDivisionError

    _, server = await loop.create_datagram_endpoint(Fails, local_addr=("127.0.0.1", 0))
    client = await endpoint(remote_addr=name(server))
    client.transport.sendto(b"fail")
    await server.next()
    client.transport.sendto(b"on")
    await asyncio.wait({asyncio.ensure_future(server.next()), server.lost}, return_when=asyncio.FIRST_COMPLETED)
    assert [type(problem) for problem in problems] == [ZeroDivisionError]
    client.transport.close()
    server.transport.close()
    loop.set_exception_handler(handler)


@only_bolide
@with_loop
async def test_errors_of_sendto_after_close_are_told_until_the_connection_is_lost():
    """As on asyncio's loop: an endpoint without a remote address has its socket until connection_lost()."""

    class ClosesOnError(Datagrams):
        def error_received(self, exc):
            super().error_received(exc)
            self.transport.close()

    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        ClosesOnError, local_addr=("127.0.0.1", 0), family=socket.AF_INET
    )
    address = name(protocol)
    transport.sendto(bytes(70_000), address)  # larger than any datagram
    transport.sendto(bytes(70_000), address)
    assert transport.is_closing()
    assert await protocol.lost is None
    assert [type(protocol.errors.get_nowait()) for _ in range(2)] == [OSError, OSError]
    transport.sendto(b"late", address)
    transport.sendto(bytes(70_000), address)
    assert protocol.errors.empty()


@with_loop
async def test_many_datagrams():
    server, client = await endpoints()
    for index in range(2000):
        client.transport.sendto(b"%d" % index)
        assert (await server.next())[0] == b"%d" % index
    client.transport.close()
    server.transport.close()
    client.transport.sendto(b"after close is dropped")


@with_loop
async def test_closing_sends_what_waits():
    server, client = await endpoints()
    for index in range(50):
        client.transport.sendto(b"%d" % index)
    client.transport.close()
    for index in range(50):
        assert (await server.next())[0] == b"%d" % index
    server.transport.close()


@with_loop
async def test_the_state_in_the_repr():
    server = await endpoint(local_addr=("127.0.0.1", 0))
    assert "closed" not in repr(server.transport) and "closing" not in repr(server.transport)
    server.transport.close()
    assert "clos" in repr(server.transport)
    await server.lost
    assert server.transport.get_extra_info("no such key", 5) == 5
    assert isinstance(server.transport, asyncio.DatagramTransport)


class Echo(asyncio.DatagramProtocol):
    def __init__(self):
        self.addresses = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.addresses.append(address)
        self.transport.sendto(data, address)


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 has to be an address of this machine")
@with_loop
async def test_many_peers_are_answered_each_at_its_own_address():
    """Each port twice, by two hosts."""
    loop = asyncio.get_running_loop()
    transport, echo = await loop.create_datagram_endpoint(Echo, local_addr=("0.0.0.0", 0), family=socket.AF_INET)
    server = ("127.0.0.1", transport.get_extra_info("sockname")[1])
    peers = []
    try:
        for _ in range(100):
            for host in ("127.0.0.1", "127.0.0.2"):
                peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                peers.append(peer)
                peer.setblocking(False)
                peer.bind((host, peers[-2].getsockname()[1] if host == "127.0.0.2" else 0))
        for number in range(3):
            for index, peer in enumerate(peers):
                peer.sendto(b"%d %d" % (number, index), server)
                if index % 20 == 19:  # no more than the socket has room for
                    for earlier in range(index - 19, index + 1):
                        data = await asyncio.wait_for(loop.sock_recv(peers[earlier], 100), 20)
                        assert data == b"%d %d" % (number, earlier)
        assert echo.addresses == [peer.getsockname() for peer in peers] * 3
    finally:
        transport.close()
        for peer in peers:
            peer.close()


@not_uvloop
@with_loop
async def test_datagrams_wait_while_reading_is_paused():
    class Keeping(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            received.append(data)
            transport.pause_reading()
            more.set()

    received, more = [], asyncio.Event()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Keeping, ("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for i in range(2):
            peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
    await asyncio.wait_for(more.wait(), 20)
    assert not transport.is_reading()
    transport.resume_reading()
    assert transport.is_reading()
    transport.close()
