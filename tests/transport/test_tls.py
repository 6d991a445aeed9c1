"""TLS: what protocols see, what leaves on the wire, and what a peer can do to it. The peers are blocking sockets."""

import asyncio
import contextlib
import gc
import os
import select
import socket
import ssl
import struct
import sys
import tempfile
import threading
import weakref

import pytest
from support.certificates import authority
from support.loops import LOOP, only_bolide, run_script, with_loop
from support.protocols import BufferedRecorder, Recorder

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CLOSE_NOTIFY = b"\x01\x00"


@contextlib.asynccontextmanager
async def serving(make=Recorder, context=None, **options):
    """A TLS server: yields the address, the list of its protocols so far, and the asyncio.Server."""
    protocols = []

    def factory():
        protocols.append(make())
        return protocols[-1]

    context = context or authority().server()
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, ssl=context, **options)
    try:
        yield server.sockets[0].getsockname(), protocols, server
    finally:
        server.close()
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await server.wait_closed()


def blocking_client(address, context=None, **options):
    """A TLS connection of a blocking socket."""
    plain = socket.create_connection(address, timeout=20)
    return (context or authority().client()).wrap_socket(plain, server_hostname="localhost", **options)


class Accepted:
    """A blocking TLS server for one connection, in a thread that runs `work(socket)`; `task` has what that returns."""

    def __init__(self, work, context=None, handshake=True):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()
        self._work = work
        self._context = context or authority().server()
        self._handshake = handshake
        self.task = asyncio.ensure_future(asyncio.to_thread(self._run))

    def _run(self):
        with self._listening:
            plain, _ = self._listening.accept()
        plain.settimeout(20)
        if not self._handshake:
            with plain:
                return self._work(plain)
        with self._context.wrap_socket(plain, server_side=True) as secure:
            return self._work(secure)


def read_to_eof(secure):
    data = bytearray()
    while piece := secure.recv(1 << 20):
        data += piece
    return bytes(data)


def read_exactly(secure, count):
    data = bytearray()
    while len(data) < count:
        piece = secure.recv(count - len(data))
        assert piece, f"the stream ended after {len(data)} bytes"
        data += piece
    return bytes(data)


def exchange(secure, payload, count):
    """Send and receive at the same time, in one thread: an SSL connection is not to be used by two."""
    secure.setblocking(False)
    left, received = memoryview(payload), bytearray()
    while len(received) < count:
        select.select([secure], [secure] if left else [], [], 20)
        if left:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                left = left[secure.send(left[:16384]) :]
        with contextlib.suppress(ssl.SSLWantReadError):
            piece = secure.recv(1 << 20)
            assert piece, f"the stream ended after {len(received)} bytes"
            received += piece
    return bytes(received)


async def connect(address, make=Recorder, context=None, **options):
    """A protocol of the loop under test on the client's end."""
    _, protocol = await asyncio.get_running_loop().create_connection(
        make, *address, ssl=context or authority().client(), server_hostname="localhost", **options
    )
    return protocol


class Buffered(BufferedRecorder):
    """Gives out a memoryview, which asyncio needs with TLS."""

    def get_buffer(self, sizehint):
        return memoryview(super().get_buffer(sizehint))


class Echo(Recorder):
    """Sends back what it gets."""

    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)


# --- the life of a connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@with_loop
async def test_the_life_of_a_server_connection(version):
    context = authority().server()
    context.minimum_version = context.maximum_version = VERSIONS[version]
    async with serving(Echo, context) as (address, protocols, _):

        def client():
            with blocking_client(address) as secure:
                secure.sendall(b"hello")
                assert read_exactly(secure, 5) == b"hello"
                secure.unwrap()

        await asyncio.to_thread(client)
        await protocols[0].until_event("lost")
        assert protocols[0].events == ["made", "data", "eof", "lost"]
        assert protocols[0].lost is None


@pytest.mark.parametrize("version", VERSIONS)
@with_loop
async def test_the_life_of_a_client_connection(version):
    context = authority().client()
    context.minimum_version = context.maximum_version = VERSIONS[version]
    peer = Accepted(lambda secure: (secure.sendall(b"welcome"), read_to_eof(secure))[1])
    protocol = await connect(peer.address, context=context)
    transport = protocol.transport
    assert isinstance(transport, asyncio.Transport)
    await protocol.until_received(7)
    transport.write(b"good")
    transport.writelines([b"bye", bytearray(b"!"), memoryview(b"!")])
    transport.close()
    assert transport.is_closing()
    assert await peer.task == b"goodbye!!"
    await protocol.until_event("lost")
    assert protocol.lost is None


@with_loop
async def test_extra_info():
    async with serving() as (address, protocols, _):
        context = authority().client()
        protocol = await connect(address, context=context)
        await asyncio.sleep(0)
        mine = protocol.transport.get_extra_info
        assert mine("sslcontext") is context
        assert mine("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
        assert mine("peercert")["subjectAltName"] == (("DNS", "localhost"),)
        assert mine("cipher") == mine("ssl_object").cipher()
        assert mine("compression") is None
        assert mine("peername") == address
        assert mine("socket").getsockname() == mine("sockname")
        assert mine("nothing", 7) == 7
        server_side = protocols[0]
        await server_side.until_event("made")
        assert server_side.transport.get_extra_info("peercert") is None
        assert server_side.transport.get_extra_info("peername") == mine("sockname")
        protocol.transport.abort()
        await protocol.until_event("lost")
        assert mine("cipher") == mine("ssl_object").cipher()
        assert mine("sslcontext") is context


@with_loop
async def test_a_transport_with_tls_has_no_half_close():
    async with serving() as (address, _, _):
        protocol = await connect(address)
        assert protocol.transport.can_write_eof() is False
        with pytest.raises(NotImplementedError):
            protocol.transport.write_eof()
        with pytest.raises(TypeError):
            protocol.transport.write("text")
        assert protocol.transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        protocol.transport.abort()
        await protocol.until_event("lost")


@with_loop
async def test_over_a_unix_socket():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")

        async def answer(reader, writer):
            writer.write((await reader.readline()).upper())
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_unix_server(answer, path, ssl=authority().server())
        async with server:
            reader, writer = await asyncio.open_unix_connection(
                path, ssl=authority().client(), server_hostname="localhost"
            )
            writer.write(b"hello\n")
            assert await reader.read() == b"HELLO\n"
            writer.close()
            await writer.wait_closed()


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 1000, 16384, 16385, 200_000, 3_000_000])
@with_loop
async def test_bytes_come_back_as_they_were_sent(size, version):
    payload = os.urandom(size)
    context = authority().server()
    context.maximum_version = VERSIONS[version]

    def client():
        with blocking_client(address) as secure:
            return exchange(secure, payload, size)

    async with serving(Echo, context) as (address, _, _):
        assert await asyncio.to_thread(client) == payload


@pytest.mark.parametrize("size", [1, 100, 16384, 300_000])
@with_loop
async def test_buffered_protocols(size):
    payload = os.urandom(50_000)

    class BufferedEcho(Buffered):
        def buffer_updated(self, nbytes):
            self.transport.write(bytes(self.buffer[:nbytes]))

    def client():
        with blocking_client(address) as secure:
            return exchange(secure, payload, len(payload))

    async with serving(lambda: BufferedEcho(size)) as (address, _, _):
        assert await asyncio.to_thread(client) == payload


@with_loop
async def test_many_small_writes_share_records():
    """What a turn of the loop gathers is encrypted together: 1,000 writes are a few records, not 1,000."""

    def count_records(plain):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = authority().server().wrap_bio(incoming, outgoing, server_side=True)
        raw, data = bytearray(), bytearray()
        while True:
            try:
                secure.do_handshake()
                while piece := secure.read(1 << 20):
                    data += piece
                return bytes(data), raw.count(b"\x17\x03\x03")
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                received = plain.recv(1 << 20)
                raw += received
                incoming.write(received)

    peer = Accepted(count_records, handshake=False)
    protocol = await connect(peer.address)
    for number in range(1000):
        protocol.transport.write(b"%03d" % number)
    protocol.transport.close()
    data, records = await peer.task
    assert data == b"".join(b"%03d" % number for number in range(1000))
    assert records < (20 if LOOP == "bolide" else 2000)


@with_loop
async def test_a_peer_that_sends_single_bytes():
    def client():
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = authority().client().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(address, timeout=20) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def run(method, *arguments):
                while True:
                    try:
                        return method(*arguments)
                    except ssl.SSLWantReadError:
                        for byte in outgoing.read():
                            plain.sendall(bytes([byte]))
                        incoming.write(plain.recv(1))

            run(secure.do_handshake)
            secure.write(b"drop by drop")
            return run(secure.read, 12)

    async with serving(Echo) as (address, _, _):
        assert await asyncio.to_thread(client) == b"drop by drop"


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 5_000_000])
@with_loop
async def test_close_sends_what_was_written(size):
    payload = os.urandom(size)

    class Sender(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(payload)
            transport.close()
            transport.write(b"too late")

    async with serving(Sender) as (address, protocols, _):

        def client():
            with blocking_client(address, suppress_ragged_eofs=False) as secure:
                return read_to_eof(secure)

        assert await asyncio.to_thread(client) == payload
        await protocols[0].until_event("lost")
        assert protocols[0].lost is None


@with_loop
async def test_abort_loses_no_time():
    async with serving() as (address, protocols, _):
        protocol = await connect(address)
        protocol.transport.abort()
        await protocol.until_event("lost")
        assert protocol.lost is None
        await protocols[0].until_event("lost")


@with_loop
async def test_a_stream_without_close_notify_ends_too():
    async with serving() as (address, protocols, _):

        def client():
            secure = blocking_client(address)
            secure.sendall(b"cut")
            with socket.socket(fileno=secure.detach()) as plain:
                plain.settimeout(20)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(10_000):
                    pass

        await asyncio.to_thread(client)
        await protocols[0].until_event("lost")
        assert protocols[0].events == ["made", "data", "eof", "lost"]
        assert bytes(protocols[0].data) == b"cut"
        assert protocols[0].lost is None


@with_loop
async def test_a_reset_is_an_error():
    async with serving() as (address, protocols, _):

        def client():
            secure = blocking_client(address)
            secure.sendall(b"x")
            secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(secure.detach())

        await asyncio.to_thread(client)
        await protocols[0].until_event("lost")
        assert isinstance(protocols[0].lost, ConnectionResetError)


@only_bolide
@with_loop
async def test_close_drops_what_the_peer_still_sends():
    """asyncio ends such a connection with SSLError: application data after close notify."""
    sent = threading.Event()

    class Closer(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().run_in_executor(None, sent.wait).add_done_callback(
                lambda _: self.transport.close()
            )

    async with serving(Closer) as (address, protocols, _):

        def client():
            with blocking_client(address) as secure:
                secure.sendall(b"x" * 100)
                for _ in range(10):
                    secure.sendall(b"y" * 1000)
                sent.set()
                assert read_to_eof(secure) == b""
                secure.sendall(b"and one more")
                secure.unwrap()

        await asyncio.to_thread(client)
        await protocols[0].until_event("lost")
        assert protocols[0].lost is None


@with_loop
async def test_shutdown_timeout():
    """The peer neither reads nor answers the close_notify."""
    release = threading.Event()
    peer = Accepted(lambda secure: release.wait(20))
    protocol = await connect(peer.address, ssl_shutdown_timeout=0.1)
    protocol.transport.close()
    await protocol.until_event("lost")
    assert isinstance(protocol.lost, TimeoutError)
    assert str(protocol.lost) == "SSL shutdown timed out"
    release.set()
    await peer.task


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
            with socket.create_connection(address, timeout=20) as plain, contextlib.suppress(ConnectionError):
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
            while True:
                try:
                    secure.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(10_000))
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
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

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


# --- flow control -----------------------------------------------------------------------------------------------------


@with_loop
async def test_a_peer_that_does_not_read_pauses_the_writer():
    go = threading.Event()

    def work(secure):
        go.wait(20)
        return len(read_to_eof(secure))

    peer = Accepted(work)
    protocol = await connect(peer.address)
    piece, count = bytes(100_000), 0
    while "pause" not in protocol.events:
        protocol.transport.write(piece)
        count += 1
        await asyncio.sleep(0)
    assert protocol.transport.get_write_buffer_size() >= 512 * 1024
    go.set()
    await protocol.until_event("resume")
    assert protocol.transport.get_write_buffer_size() <= 128 * 1024
    protocol.transport.close()
    assert await peer.task == count * len(piece)
    await protocol.until_event("lost")
    assert protocol.lost is None


@pytest.mark.parametrize("make", [Recorder, lambda: Buffered(20_000)], ids=["protocol", "buffered"])
@with_loop
async def test_pause_reading_holds_the_peer_up(make):
    """No byte is delivered while reading is paused, the peer cannot send for ever, and all arrives in order then."""
    payload = os.urandom(8_000_000)
    stuck = threading.Event()

    def work(secure):
        secure.settimeout(0.5)
        sent = 0
        view = memoryview(payload)
        while sent < len(payload):
            try:
                sent += secure.send(view[sent : sent + 16384])
            except TimeoutError:
                if stuck.is_set():
                    raise
                stuck.set()
                secure.settimeout(20)

    peer = Accepted(work)
    protocol = await connect(peer.address, make)
    protocol.transport.pause_reading()
    assert not protocol.transport.is_reading()
    before = len(protocol.data)
    await asyncio.to_thread(stuck.wait, 20)
    assert stuck.is_set() and len(protocol.data) == before
    protocol.transport.resume_reading()
    await protocol.until_received(len(payload))
    assert bytes(protocol.data) == payload
    await peer.task
    protocol.transport.abort()
    await protocol.until_event("lost")


@with_loop
async def test_pausing_in_the_middle_of_what_was_read():
    """With a small buffer one read of the socket is many deliveries: a pause in between keeps the rest."""
    payload = os.urandom(20_000)

    class Hesitant(Buffered):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.pause_reading()
            assert not self.paused
            self.paused = True
            asyncio.get_running_loop().call_later(0.0001, self.go_on)

        def go_on(self):
            self.paused = False
            self.transport.resume_reading()

        paused = False

    peer = Accepted(lambda secure: (secure.sendall(payload), secure.unwrap())[0])
    protocol = await connect(peer.address, lambda: Hesitant(700))
    await protocol.until_event("lost")
    assert bytes(protocol.data) == payload
    assert protocol.events == ["made", "data", "eof", "lost"]
    await peer.task


# --- protocols that misbehave -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received", "pause_writing"])
@with_loop
async def test_closing_in_a_callback(where, how):
    def act(self, *args):
        getattr(super(cls, self), where)(*args)
        if where == "data_received":
            self.transport.write(bytes(2_000_000))
        getattr(self.transport, how)()

    cls = type("Closer", (Recorder,), {where: act})
    if where == "pause_writing":
        cls.data_received = lambda self, data: self.transport.write(bytes(50_000_000))

    def client():
        with contextlib.suppress(OSError), blocking_client(address) as secure:
            secure.sendall(b"x" * 100_000)
            if where == "eof_received":
                secure.unwrap()
            else:
                read_to_eof(secure)

    async with serving(cls) as (address, protocols, _):
        await asyncio.to_thread(client)
        await protocols[0].until_event("lost")
        assert protocols[0].events.count("lost") == 1


@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_exceptions_in_callbacks_are_reported_and_close(loop, reports, where):
    async def main():
        def act(self, *args):
            getattr(super(cls, self), where)(*args)
            raise ZeroDivisionError

        cls = type("Raiser", (Recorder,), {where: act})

        def client():
            with contextlib.suppress(OSError), blocking_client(address) as secure:
                secure.sendall(b"x" * 100)
                if where in ("eof_received", "connection_lost"):
                    secure.unwrap()
                else:
                    read_to_eof(secure)

        async with serving(cls) as (address, protocols, _):
            await asyncio.to_thread(client)
            await protocols[0].until_event("lost")

    loop.run_until_complete(asyncio.wait_for(main(), 40))
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    reports.clear()


def test_keyboard_interrupt_in_a_callback_ends_the_loop(loop):
    class Interrupted(Recorder):
        def data_received(self, data):
            raise KeyboardInterrupt

    async def main():
        async with serving(Interrupted) as (address, _, _):
            protocol = await connect(address)
            protocol.transport.write(b"x")
            await protocol.until_event("lost")

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)


# --- start_tls --------------------------------------------------------------------------------------------------------


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
            while True:
                try:
                    secure.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    received = plain.recv(10_000)
                    if not received:
                        return
                    incoming.write(received)
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


# --- memory -----------------------------------------------------------------------------------------------------------


@with_loop
async def test_nothing_is_kept_after_the_end():
    context = authority().client()
    async with serving() as (address, protocols, _):
        protocol = await connect(address, context=context)
        protocol.transport.close()
        await protocol.until_event("lost")
        refs = [weakref.ref(context), weakref.ref(protocol.transport)]
        del context, protocol
        await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
        await protocols[0].until_event("lost")


def test_a_loop_closes_with_connections_in_every_state():
    run_script(
        """
        import ssl
        from support.certificates import authority
        loop = new_event_loop()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

        async def main():
            server = await loop.create_server(Protocol, "127.0.0.1", 0, ssl=authority().server())
            address = server.sockets[0].getsockname()
            idle = socket.create_connection(address)
            made = [await loop.create_connection(Protocol, *address, ssl=authority().client(),
                                                 server_hostname="localhost") for _ in range(4)]
            made[1][0].write(bytes(10_000_000))
            made[2][0].close()
            made[3][0].pause_reading()
            asyncio.ensure_future(loop.create_connection(Protocol, *address, ssl=authority().client(),
                                                         server_hostname="localhost"))
            await asyncio.sleep(0)
            return idle

        idle = loop.run_until_complete(main())
        loop.close()
        gc.collect()
        """,
        options=("-W", "ignore"),
    )


@only_bolide
@pytest.mark.rss
def test_handshakes_leave_nothing_behind():
    """2,500 connections, each with a handshake on both ends, some broken off: the process does not grow."""
    run_script(
        """
        import resource, ssl
        from statistics import median
        from support.certificates import authority
        loop = new_event_loop()
        server_context, client_context = authority().server(), authority().client()

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)

        class Client(asyncio.Protocol):
            def __init__(self):
                self.got = loop.create_future()

            def data_received(self, data):
                self.got.cancelled() or self.got.done() or self.got.set_result(data)

        async def one(address, number):
            if number % 10 == 9:
                socket.create_connection(address).close()
                return
            transport, protocol = await loop.create_connection(Client, *address, ssl=client_context,
                                                               server_hostname="localhost")
            transport.write(bytes(number % 5 * 10_000 + 1))
            await protocol.got
            transport.close() if number % 3 else transport.abort()

        def memory():
            gc.collect()
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()

        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context)
            address = server.sockets[0].getsockname()
            sizes = []
            for _ in range(5):
                for start in range(0, 500, 10):
                    await asyncio.gather(*(one(address, start + n) for n in range(10)))
                sizes.append(memory())
            growths = [after - before for before, after in zip(sizes, sizes[1:])]
            assert median(growths) < 500 * 64, growths
            server.close()

        loop.run_until_complete(main())
        loop.close()
        """
    )
