"""TLS handshakes: those that fail, what a peer can do to them, and what contexts can do in them."""

import asyncio
import contextlib
import gc
import os
import shutil
import socket
import ssl
import sys
import threading

import pytest
from support.certificates import authority
from support.loops import LOOP, with_loop
from support.protocols import Recorder, reset
from support.tls_peers import (
    VERSIONS,
    Accepted,
    Echo,
    blocking_client,
    connect,
    read_exactly,
    read_to_eof,
    serving,
    shake_hands,
)


@with_loop
async def test_a_handshake_that_cannot_begin_closes_its_descriptor_once():
    """A second time it would be another's."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with pytest.raises(UnicodeError):
            await loop.create_connection(
                Recorder, *listening.getsockname(), ssl=authority().client(), server_hostname="x" * 300
            )
        others = [socket.socket() for _ in range(10)]
        for _ in range(5):
            await asyncio.sleep(0)
        for sock in others:
            assert sock.getsockname() == ("0.0.0.0", 0)
            sock.close()


# --- handshakes that fail ---------------------------------------------------------------------------------------------


@with_loop
async def test_handshake_timeout():
    release = threading.Event()
    peer = Accepted(lambda plain: release.wait(20), handshake=False)
    with pytest.raises(ConnectionAbortedError, match=r"SSL handshake is taking longer than 0\.1 seconds: aborting"):
        await connect(peer.address, ssl_handshake_timeout=0.1)
    release.set()
    await peer.task
    async with serving(ssl_handshake_timeout=0.1) as (address, protocols, _):
        with socket.create_connection(address, timeout=20) as plain:
            assert await asyncio.to_thread(plain.recv, 100) == b""
        assert protocols[0].events == []


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1])
@with_loop
async def test_timeouts_must_be_positive(name, value):
    peer = Accepted(read_to_eof, handshake=False)
    with pytest.raises(ValueError, match=f"{name} should be a positive number, got {value}"):
        await connect(peer.address, **{name: value})
    gc.collect()
    await peer.task


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5, b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x16\x03\x01\x00\x00" * 3,
     b"\x80\x2e\x01\x00\x02" + b"\x00" * 50, b"\x15\x03\x03\x00\x02\x02\x28", os.urandom(100_000)],
    ids=["http", "zeros", "too long", "empty", "sslv2", "alert", "random"],
)  # fmt: skip
@with_loop
async def test_garbage_instead_of_a_hello(garbage):
    async with serving(Echo, ssl_handshake_timeout=5) as (address, protocols, _):

        def client():
            # After a reset, shutdown() raises an ENOTCONN, which is no ConnectionError.
            with socket.create_connection(address, timeout=20) as plain, contextlib.suppress(OSError):
                plain.sendall(garbage)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(1000):
                    pass
            with blocking_client(address) as secure:
                secure.sendall(b"well")
                return read_exactly(secure, 4)

        assert await asyncio.to_thread(client) == b"well"
        assert protocols[0].events == []


@pytest.mark.parametrize("position", [0, 100, 10_000])
@with_loop
async def test_a_record_that_was_tampered_with(position):
    """The connection ends with an SSLError; what came before arrives."""

    def client():
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = authority().client().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(address, timeout=20) as plain:
            assert shake_hands(secure, incoming, outgoing, plain)
            plain.sendall(outgoing.read())
            secure.write(b"good")
            good = outgoing.read()
            secure.write(bytes(12_000))
            bad = bytearray(outgoing.read())
            bad[5 + position] ^= 1
            plain.sendall(good + bad)
            with contextlib.suppress(ConnectionError):
                while plain.recv(1000):
                    pass

    async with serving() as (address, protocols, _):
        await asyncio.to_thread(client)
        await protocols[0].until_event("lost")
        assert isinstance(protocols[0].lost, ssl.SSLError)
        if LOOP == "bolide":
            assert bytes(protocols[0].data) == b"good"


@pytest.mark.parametrize("how", ["fin", "reset"])
@with_loop
async def test_a_peer_that_leaves_in_the_handshake(how):
    def leave(plain):
        plain.recv(10)
        if how == "reset":
            reset(plain)

    peer = Accepted(leave, handshake=False)
    with pytest.raises(ConnectionResetError):
        await connect(peer.address)
    await peer.task


@with_loop
async def test_an_untrusted_certificate():
    """The client says so to its caller, and by an alert to the server."""

    def work(plain):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other = type(authority())()
        other.issue("localhost").configure_cert(context)
        with pytest.raises((ssl.SSLError, ConnectionError)) as caught:
            context.wrap_socket(plain, server_side=True).recv(1)
        return str(caught.value)

    peer = Accepted(work, handshake=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(peer.address)
    message = await peer.task
    if LOOP == "bolide":
        assert "unknown ca" in message.lower()


@with_loop
async def test_a_wrong_host_name():
    def work(plain):
        with contextlib.suppress(OSError), authority().server().wrap_socket(plain, server_side=True) as secure:
            return secure.recv(1)

    peer = Accepted(work, handshake=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.get_running_loop().create_connection(
            Recorder, *peer.address, ssl=authority().client(), server_hostname="elsewhere"
        )
    await peer.task


@pytest.mark.parametrize("bytes_before", [0, 5, 300])
@with_loop
async def test_a_cancelled_handshake(bytes_before):
    seen = threading.Event()

    def work(plain):
        read_exactly(plain, bytes_before or 1)
        seen.set()
        with contextlib.suppress(ConnectionError):
            return read_to_eof(plain) is not None

    peer = Accepted(work, handshake=False)
    task = asyncio.ensure_future(connect(peer.address))
    await asyncio.to_thread(seen.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.task  # which the end of the connection lets end


# --- what contexts can do ---------------------------------------------------------------------------------------------


@with_loop
async def test_alpn():
    server_context, client_context = authority().server(), authority().client()
    server_context.set_alpn_protocols(["two", "three"])
    client_context.set_alpn_protocols(["one", "two"])
    async with serving(context=server_context) as (address, protocols, _):
        protocol = await connect(address, context=client_context)
        assert protocol.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "two"
        await protocols[0].until_event("made")
        assert protocols[0].transport.get_extra_info("ssl_object").selected_alpn_protocol() == "two"
        protocol.transport.abort()
        await protocol.until_event("lost")


@with_loop
async def test_the_sni_callback_may_change_the_context():
    context = authority().server("wrong.example")
    asked = []

    def choose(connection, name, _):
        asked.append(name)
        connection.context = authority().server("localhost")

    context.sni_callback = choose
    async with serving(Echo, context) as (address, _, _):
        protocol = await connect(address)
        protocol.transport.write(b"hello")
        await protocol.until_received(5)
        protocol.transport.abort()
        await protocol.until_event("lost")
    assert asked == ["localhost"]


@with_loop
async def test_an_sni_callback_that_raises():
    context = authority().server()
    unraisable = []

    def raises(*_):
        raise ZeroDivisionError

    context.sni_callback = raises
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        async with serving(context=context) as (address, protocols, _):
            with pytest.raises(ssl.SSLError if LOOP == "bolide" else OSError):
                await connect(address)
            assert protocols[0].events == []
    finally:
        sys.unraisablehook = hook
    assert [one.exc_type for one in unraisable] == [ZeroDivisionError]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio.Server.abort_clients() is new in Python 3.13")
@with_loop
async def test_an_sni_callback_that_aborts_the_connection():
    context = authority().server()
    async with serving(context=context) as (address, protocols, server):
        context.sni_callback = lambda *_: server.abort_clients()
        with pytest.raises(OSError):
            await connect(address)
        assert protocols[0].events == []


@with_loop
async def test_client_certificates():
    context = authority().server()
    context.verify_mode = ssl.CERT_REQUIRED
    authority().ca.configure_trust(context)
    async with serving(Echo, context) as (address, protocols, _):
        protocol = await connect(address, context=authority().client("client.example"))
        protocol.transport.write(b"it is me")
        await protocol.until_received(8)
        peercert = protocols[0].transport.get_extra_info("peercert")
        assert peercert["subjectAltName"] == (("DNS", "client.example"),)
        protocol.transport.abort()
        await protocol.until_event("lost")

        def anonymous():
            with contextlib.suppress(ConnectionError), blocking_client(address) as secure:
                secure.sendall(b"x")
                if LOOP == "bolide":
                    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
                        secure.recv(1)

        await asyncio.to_thread(anonymous)
        assert protocols[1].events == []


@with_loop
async def test_a_certificate_asked_for_after_the_handshake():
    """TLS 1.3, RFC 8446, section 4.6.2: the application asks by the SSLObject."""
    context = authority().server()
    context.verify_mode = ssl.CERT_REQUIRED
    context.post_handshake_auth = True
    authority().ca.configure_trust(context)
    client_context = authority().client("client.example")
    client_context.post_handshake_auth = True

    class Asks(Recorder):
        def data_received(self, data):
            super().data_received(data)
            ssl_object = self.transport.get_extra_info("ssl_object")
            if data == b"please":
                assert ssl_object.getpeercert() is None
                ssl_object.verify_client_post_handshake()
                self.transport.write(b"wait")
            else:
                self.transport.write(b"seen" if ssl_object.getpeercert() else b"none")

    def client():
        with blocking_client(address, client_context) as secure:
            secure.sendall(b"please")
            first = read_exactly(secure, 4)
            secure.sendall(b"now?")
            return first, read_exactly(secure, 4)

    async with serving(Asks, context) as (address, _, _):
        assert await asyncio.to_thread(client) == (b"wait", b"seen")


@pytest.mark.parametrize("version", VERSIONS)
@with_loop
async def test_sessions_are_resumed(version):
    context, client_context = authority().server(), authority().client()
    client_context.maximum_version = VERSIONS[version]

    def client(session=None):
        with blocking_client(address, client_context, session=session) as secure:
            secure.sendall(b"x")
            read_exactly(secure, 1)
            return secure.session, secure.session_reused

    async with serving(Echo, context) as (address, _, _):
        session, reused = await asyncio.to_thread(client)
        assert not reused
        _, reused = await asyncio.to_thread(client, session)
        assert reused


@pytest.mark.skipif(shutil.which("openssl") is None, reason="Python's ssl cannot ask for a renegotiation; openssl can")
@with_loop
async def test_renegotiation_is_refused():
    """A client of TLS 1.2 that asks for it is told so; others are served on."""
    context = authority().server()
    context.maximum_version = VERSIONS["1.2"]
    async with serving(Echo, context) as (address, protocols, _):
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", "-servername", "localhost", "-tls1_2"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            client.stdin.write(b"before\n")
            while not protocols:
                await asyncio.sleep(0.001)
            await protocols[0].until_received(7)
            client.stdin.write(b"R\n")
            said = b""
            while b"no renegotiation" not in said.lower():
                piece = await asyncio.wait_for(client.stdout.read(65536), 20)
                assert piece, said
                said += piece
            assert b"RENEGOTIATING" in said
        finally:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
            await client.wait()
        assert bytes(protocols[0].data) == b"before\n"
        other = await connect(address)
        other.transport.write(b"after")
        await other.until_received(5)
        other.transport.abort()
        await other.until_event("lost")
