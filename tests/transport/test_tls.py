"""TLS: what protocols see, and what leaves on the wire."""

import asyncio
import contextlib
import os
import socket
import ssl
import tempfile
import threading

import pytest
from support.certificates import authority
from support.loops import LOOP, only_bolide, with_loop
from support.protocols import Recorder, reset
from support.tls_peers import (
    VERSIONS,
    Accepted,
    Buffered,
    Echo,
    blocking_client,
    connect,
    exchange,
    read_exactly,
    read_to_eof,
    serving,
)

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
            reset(secure)

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
