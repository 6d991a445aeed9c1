"""Datagram endpoints."""

from __future__ import annotations

import asyncio
import socket

from support.loops import with_loop


class Recorder(asyncio.DatagramProtocol):
    def __init__(self):
        self.errors = []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def error_received(self, exc):
        self.errors.append(exc)
        self.transport.close()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@with_loop
async def test_errors_of_sendto_after_close_are_told_until_the_connection_is_lost():
    """As on asyncio's loop: an endpoint without a remote address has its socket until connection_lost()."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Recorder, local_addr=("127.0.0.1", 0), family=socket.AF_INET
    )
    address = transport.get_extra_info("sockname")
    transport.sendto(bytes(70_000), address)  # larger than any datagram
    transport.sendto(bytes(70_000), address)
    assert transport.is_closing()
    assert await protocol.lost is None
    assert [type(error) for error in protocol.errors] == [OSError, OSError]
    transport.sendto(b"late", address)
    transport.sendto(bytes(70_000), address)
    assert len(protocol.errors) == 2
