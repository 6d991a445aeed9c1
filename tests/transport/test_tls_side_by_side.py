"""What protocols, exception handlers and logs see of TLS: the same as on asyncio's own loop."""

import asyncio
import contextlib
import socket
import ssl

import pytest
from support.certificates import authority
from support.loops import not_uvloop
from support.protocols import BufferedRecorder, Recorder, accepted, closed, reset
from support.side_by_side import Noting, check
from support.tls_peers import connect, serving

pytestmark = not_uvloop


async def until_closed(peer):
    """Read a non-blocking socket to its end, which may be a reset."""
    with contextlib.suppress(ConnectionError):
        while await asyncio.get_running_loop().sock_recv(peer, 10_000):
            pass


def test_limits_of_the_read_buffer_with_tls():
    limits = [(), (5,), (5, 2), (None, 7), (2, 5), (-1,), (0,), ("x",)]

    async def scenario(loop, notes):
        async with serving() as (address, _, _):
            protocol = await connect(address)
            transport = protocol.transport
            notes(transport.get_read_buffer_size(), transport.get_read_buffer_limits())
            for limit in limits:
                notes.call(transport.set_read_buffer_limits, *limit)
                notes(transport.get_read_buffer_limits())
            notes(hasattr(transport, "max_size"))
            await closed(protocol)

    check(scenario)


@pytest.mark.parametrize("how", ["cancel", "timeout", "close", "abort", "reset", "no TLS", "end"])
def test_a_protocol_during_start_tls(how):
    """asyncio tells it of a handshake that failed, but not of one that was given up."""

    async def scenario(loop, notes):
        protocol, peer = await accepted(lambda: Noting(notes))
        transport = protocol.transport
        upgrade = asyncio.ensure_future(
            loop.start_tls(
                transport,
                protocol,
                authority().client(),
                server_hostname="localhost",
                ssl_handshake_timeout=0.05 if how == "timeout" else 30,
            )
        )
        assert (await loop.sock_recv(peer, 1))[0] == 22  # the hello
        if how == "cancel":
            upgrade.cancel()
        elif how == "close":
            transport.close()
        elif how == "abort":
            transport.abort()
        elif how == "reset":
            reset(peer)
        elif how == "no TLS":
            await loop.sock_sendall(peer, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif how == "end":
            peer.shutdown(socket.SHUT_WR)
        try:
            assert not await upgrade  # asyncio's answer to a close() in between
        except (OSError, asyncio.CancelledError) as error:
            if how not in ("close", "abort"):
                notes(type(error).__name__)
        transport.abort()
        if how in ("no TLS", "end"):
            await protocol.until_event("lost")
        if how != "reset":
            await until_closed(peer)
            peer.close()

    notes = check(scenario)
    assert any("lost" in note for note in notes) == (how in ("no TLS", "end"))


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("how", ["no TLS", "end", "timeout"])
def test_handshakes_of_a_server_that_fail(how, debug):
    async def scenario(loop, notes):
        server = await loop.create_server(
            lambda: Noting(notes),
            "127.0.0.1",
            0,
            ssl=authority().server(),
            ssl_handshake_timeout=0.05 if how == "timeout" else 30,
        )
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            if how == "no TLS":
                await loop.sock_sendall(peer, b"GET / HTTP/1.1\r\n\r\n")
            elif how == "end":
                peer.shutdown(socket.SHUT_WR)
            await until_closed(peer)
        if debug:
            await notes.until("reported")  # asyncio does so from a task, some turns later
        server.close()
        # asyncio has two objects to tell of an EOF.
        notes[:] = [note for note in notes if note.startswith("reported") or "SSL handshake failed" in note]
        notes[:] = [note.replace(" (_ssl.c", "(").split("_ssl.c")[0] for note in notes]

    assert any("Error on transport creation" in note for note in check(scenario, debug)) == debug


def test_handshakes_in_debug_mode():
    async def scenario(loop, notes):
        async with serving() as (address, _, _):
            protocol = await connect(address)
            protocol.transport.close()
            await protocol.until_event("lost")
        notes[:] = sorted(note for note in notes if "SSL handshake" in note)

    assert len(check(scenario, debug=True)) == 4


def test_writes_to_a_lost_connection_with_tls():
    async def scenario(loop, notes):
        async with serving() as (address, _, _):
            protocol = await connect(address)
            transport = protocol.transport
            transport.close()
            for i in range(8):
                notes(i)
                transport.write(b"lost")
            transport.writelines([b"lost"])
            await protocol.until_event("lost")
            transport.write(b"lost")

    assert "log WARNING SSL connection is closed " in check(scenario)


@pytest.mark.parametrize("buffer", [b"read-only", 5, None], ids=lambda buffer: type(buffer).__name__)
def test_buffers_that_cannot_be_read_into_with_tls(buffer):
    async def scenario(loop, notes):
        async with serving(BufferedRecorder) as (address, protocols, _):
            client = await connect(address)
            await protocols[0].until_event("made")
            protocols[0].buffer = buffer
            client.transport.write(b"x")
            await protocols[0].until_event("lost")
            notes(protocols[0].lost)
            await closed(client)

    assert check(scenario)[0].startswith("reported Fatal error on SSL protocol")


NAMES = [b"localhost", b"other.example", bytearray(b"other.example"), b"\xff", 5, "other.example"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_of_any_kind_is_verified(name):
    """In bytes, too: create_connection() takes it from a host in bytes."""

    async def scenario(loop, notes):
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=authority().server())
        address = server.sockets[0].getsockname()
        options = {"ssl": authority().client(), "server_hostname": name}
        try:
            transport, protocol = await loop.create_connection(Recorder, *address, **options)
        except (ssl.SSLError, UnicodeError, AttributeError) as error:
            notes(type(error).__name__)
        else:
            notes("connected")
            transport.abort()
            await protocol.until_event("lost")
        server.close()

    assert (check(scenario) == ["connected"]) == (name == b"localhost")
