"""The attributes of transports: max_size, and those that a program makes."""

import asyncio
import socket

import pytest
from support.loops import not_uvloop, only_bolide, with_loop
from support.protocols import Keeper, connected

pytestmark = not_uvloop


@with_loop
async def test_max_size_limits_what_is_read_at_once():
    protocol, peer = await connected(Keeper)
    assert protocol.transport.max_size == 256 * 1024
    protocol.transport.max_size = 4
    peer.sendall(b"ten bytes.")
    await protocol.until_received(10)
    assert b"".join(protocol.pieces) == b"ten bytes." and max(map(len, protocol.pieces)) <= 4
    protocol.transport.max_size = 10**9
    peer.sendall(b"x" * 100_000)
    await protocol.until_received(100_010)
    assert max(map(len, protocol.pieces)) > 4
    peer.close()
    await protocol.until_event("lost")


@with_loop
async def test_max_size_of_datagrams():
    class Last(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            received.set_result(data)

    received = asyncio.get_running_loop().create_future()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Last, ("127.0.0.1", 0))
    assert transport.max_size == 256 * 1024
    transport.max_size = 5
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"ten bytes.", transport.get_extra_info("sockname"))
    assert await asyncio.wait_for(received, 20) == b"ten b"
    transport.close()


@only_bolide
@with_loop
async def test_max_size_that_is_none():
    loop = asyncio.get_running_loop()
    protocol, peer = await connected()
    datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    for transport in (protocol.transport, datagrams):
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="positive"):
                transport.max_size = wrong
        with pytest.raises(TypeError):
            transport.max_size = "many"
        del transport.max_size
        assert transport.max_size == 256 * 1024
        transport.close()
    peer.close()


@with_loop
async def test_attributes_of_a_programs_own():
    loop = asyncio.get_running_loop()
    protocol, peer = await connected()
    datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    for transport in (protocol.transport, datagrams):
        transport.of_my_own = transport  # a cycle
        assert transport.of_my_own is transport
        assert vars(transport)["of_my_own"] is transport
        transport.is_closing = lambda: "replaced"
        assert transport.is_closing() == "replaced"
        transport.close()
    peer.close()


@with_loop
async def test_plain_transports_have_no_read_buffer():
    protocol, peer = await connected()
    assert not hasattr(protocol.transport, "get_read_buffer_limits")
    peer.close()
    await protocol.until_event("lost")
