"""TLS that is put on a connection that is there: start_tls() of loops, streams and transports with TLS."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import tempfile
import weakref

import pytest
from support.certificates import authority
from support.loops import LOOP, only_bolide, with_loop
from support.protocols import Recorder
from support.tls_peers import (
    Accepted,
    connect,
    read_exactly,
    read_to_eof,
    shake_hands,
)


async def plain_pair():
    """A Recorder and the blocking socket it is connected to."""
    left, right = socket.socketpair()
    right.settimeout(20)
    _, protocol = await asyncio.get_running_loop().create_connection(Recorder, sock=left)
    return protocol, right


@with_loop
async def test_start_tls_as_the_client():
    protocol, peer = await plain_pair()

    def work():
        assert peer.recv(8) == b"STARTTLS"
        peer.sendall(b"GO")
        with authority().server().wrap_socket(peer, server_side=True) as secure:
            secure.sendall(b"secret")
            return read_to_eof(secure)

    working = asyncio.ensure_future(asyncio.to_thread(work))
    protocol.transport.write(b"STARTTLS")
    await protocol.until_received(2)
    transport = await asyncio.get_running_loop().start_tls(
        protocol.transport, protocol, authority().client(), server_hostname="localhost"
    )
    assert transport.get_extra_info("cipher") is not None
    assert protocol.events == ["made", "data"]
    await protocol.until_received(8)
    transport.write(b"answer")
    transport.close()
    assert await working == b"answer"
    await protocol.until_event("lost")
    assert bytes(protocol.data) == b"GOsecret"


@with_loop
async def test_start_tls_as_the_server_sends_what_was_written_before_in_the_clear():
    protocol, peer = await plain_pair()

    def work():
        assert read_exactly(peer, 200_005) == bytes(200_000) + b"ready"
        with authority().client().wrap_socket(peer, server_hostname="localhost") as secure:
            secure.sendall(b"question")
            return read_exactly(secure, 6)

    working = asyncio.ensure_future(asyncio.to_thread(work))
    protocol.transport.write(bytes(200_000))
    protocol.transport.write(b"ready")
    transport = await asyncio.get_running_loop().start_tls(
        protocol.transport, protocol, authority().server(), server_side=True
    )
    await protocol.until_received(8)
    transport.write(b"answer")
    assert await working == b"answer"
    transport.abort()
    await protocol.until_event("lost")


@with_loop
async def test_start_tls_that_fails_closes_the_connection():
    protocol, peer = await plain_pair()

    def work():
        peer.recv(100_000)
        peer.sendall(b"I do not understand\n")
        with contextlib.suppress(ConnectionError):
            while peer.recv(1000):
                pass
        return "ended"

    working = asyncio.ensure_future(asyncio.to_thread(work))
    with pytest.raises(ssl.SSLError):
        await asyncio.get_running_loop().start_tls(
            protocol.transport, protocol, authority().client(), server_hostname="localhost"
        )
    await protocol.until_event("lost")
    assert isinstance(protocol.lost, ssl.SSLError)
    assert bytes(protocol.data) == b""
    assert await working == "ended"


@only_bolide
@with_loop
async def test_start_tls_that_fails_leaves_no_cycle():
    """The transport goes away without the garbage collector."""
    protocol, peer = await plain_pair()

    def work():
        peer.recv(100_000)
        peer.sendall(b"I do not understand\n")
        peer.close()

    working = asyncio.ensure_future(asyncio.to_thread(work))
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ssl.SSLError):
            await asyncio.get_running_loop().start_tls(
                protocol.transport, protocol, authority().client(), server_hostname="localhost"
            )
        await protocol.until_event("lost")
        await working
        transport = weakref.ref(protocol.transport)
        del protocol
        await asyncio.sleep(0)
        assert transport() is None
    finally:
        gc.enable()


@with_loop
async def test_start_tls_checks_its_arguments():
    protocol, peer = await plain_pair()
    loop = asyncio.get_running_loop()
    with pytest.raises(TypeError, match=r"sslcontext is expected to be an instance of ssl\.SSLContext, got None"):
        await loop.start_tls(protocol.transport, protocol, None)
    with pytest.raises(TypeError, match="is not supported by start_tls"):
        await loop.start_tls(None, protocol, authority().client())
    protocol.transport.abort()
    await protocol.until_event("lost")
    if LOOP == "bolide":
        with pytest.raises(ConnectionResetError):
            await loop.start_tls(protocol.transport, protocol, authority().client(), server_hostname="localhost")
    peer.close()


@with_loop
async def test_streams_start_tls_on_both_sides():
    async def answer(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(authority().server())
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(authority().client(), server_hostname="localhost")
        writer.write(b"hello\n")
        assert await reader.read() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()


@only_bolide
@pytest.mark.parametrize("early", ["hello", "command"])
@with_loop
async def test_what_comes_before_a_stream_server_starts_tls(early):
    """The hello of an eager client is one; a command smuggled in before it is not taken for one, nor for plaintext."""
    outcome = asyncio.get_running_loop().create_future()

    async def answer(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        while not reader._buffer:
            await asyncio.sleep(0)
        try:
            await writer.start_tls(authority().server())
            outcome.set_result(await reader.readline())
        except ssl.SSLError as exc:
            outcome.set_result(exc)
        writer.close()

    def client():
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = authority().client().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            secure.do_handshake()
        first = b"STARTTLS\n" + (b"" if early == "hello" else b"DELETE EVERYTHING\n") + outgoing.read()
        with socket.create_connection(address, timeout=20) as plain, contextlib.suppress(ConnectionError, ssl.SSLError):
            plain.sendall(first)
            if not shake_hands(secure, incoming, outgoing, plain):
                return
            secure.write(b"secret\n")
            plain.sendall(outgoing.read())
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(1000):
                pass

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        await asyncio.to_thread(client)
        result = await outcome
    assert result == b"secret\n" if early == "hello" else isinstance(result, ssl.SSLError)


@with_loop
async def test_tls_within_tls():
    async def answer(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        upgrade = asyncio.ensure_future(writer.start_tls(authority().server()))
        await asyncio.sleep(0)
        ready.set()
        await upgrade
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=authority().server()) as server:
        outer = await connect(server.sockets[0].getsockname())
        outer.transport.write(b"STARTTLS\n")
        await ready.wait()
        inner = Recorder()
        transport = await loop.start_tls(outer.transport, inner, authority().client(), server_hostname="localhost")
        transport.write(b"hello\n")
        await inner.until_received(6)
        assert bytes(inner.data) == b"HELLO\n"
        transport.abort()
        await inner.until_event("lost")


@with_loop
async def test_sendfile():
    payload = os.urandom(300_000)
    peer = Accepted(read_to_eof)
    protocol = await connect(peer.address)
    with tempfile.TemporaryFile() as file:
        file.write(payload)
        sent = await asyncio.get_running_loop().sendfile(protocol.transport, file, 1000, 200_000)
    assert sent == 200_000
    protocol.transport.close()
    assert await peer.task == payload[1000:201_000]
    await protocol.until_event("lost")
