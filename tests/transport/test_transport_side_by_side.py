"""What protocols, exception handlers and logs see of transports: the same as of those of asyncio's own loop."""

import asyncio
import socket
import ssl
import struct

import pytest
from support.certificates import authority
from support.loops import LOOP, only_bolide, with_loop
from support.protocols import BufferedRecorder, Recorder, connected
from support.side_by_side import check

pytestmark = pytest.mark.skipif(LOOP == "uvloop", reason="has words of its own")


class Noting(Recorder):
    """Notes what it is told, as it comes."""

    def __init__(self, notes, name=""):
        super().__init__()
        self.notes, self.name = notes, name

    def data_received(self, data):
        self.notes(self.name, "data", data)
        super().data_received(data)

    def eof_received(self):
        self.notes(self.name, "eof")
        return super().eof_received()

    def connection_lost(self, exc):
        self.notes(self.name, "lost", exc)
        super().connection_lost(exc)


def reset(sock):
    """Close it so that the peer gets an error."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def accepted(loop, make):
    """A protocol on the accepted end of a TCP connection, and the plain socket of the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        sock, _ = listening.accept()
    peer.setblocking(False)
    _, protocol = await loop.connect_accepted_socket(make, sock)
    return protocol, peer


# --- debug mode -------------------------------------------------------------------------------------------------------


def without_polling(note):
    """What is polled in the moment of a line may differ."""
    return note.replace("read=polling", "read=idle")


def test_lines_of_debug_mode(monkeypatch):
    async def scenario(loop, notes):
        server = await loop.create_server(lambda: server_side, "127.0.0.1", 0)
        server_side = Noting(notes, "server")
        peer = socket.socket()
        peer.setblocking(False)
        await loop.sock_connect(peer, server.sockets[0].getsockname())
        await server_side.until_event("made")
        server_side.transport.pause_reading()
        server_side.transport.pause_reading()
        server_side.transport.resume_reading()
        server_side.transport.resume_reading()
        await loop.sock_sendall(peer, b"x")
        await server_side.until_event("data")
        peer.close()
        await server_side.until_event("lost")
        server.close()
        await server.wait_closed()
        notes[:] = map(without_polling, notes)

    text = "\n".join(check(scenario, debug=True))
    for words in ("got a new connection from", "pauses reading", "resumes reading", "received EOF", "is serving"):
        assert words in text


@pytest.mark.parametrize("debug", [False, True])
def test_lines_about_lost_connections(debug):
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Noting(notes))
        reset(peer)
        await protocol.until_event("lost")
        notes[:] = map(without_polling, notes)

    text = "\n".join(check(scenario, debug))
    assert ("Fatal read error on socket transport" in text) == debug


@pytest.mark.parametrize("debug", [False, True])
def test_lines_of_datagram_endpoints(debug):
    async def scenario(loop, notes):
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        notes(transport)
        notes.call(transport.pause_reading)
        notes.call(transport.pause_reading)
        notes.call(transport.is_reading)
        notes(transport)
        notes.call(transport.resume_reading)
        notes.call(transport.resume_reading)
        notes.call(transport.is_reading)
        transport.close()
        notes.call(transport.is_reading)
        notes.call(transport.resume_reading)

    check(scenario, debug)


@only_bolide
@pytest.mark.parametrize("where", ["debug", "getpeername"])
def test_a_log_that_fails_costs_nothing_but_a_report(loop, reports, monkeypatch, where):
    """Neither the connection that a line is about, nor its descriptor."""

    def fail(*_, **__):
        raise ZeroDivisionError

    loop.set_debug(True)
    if where == "debug":
        monkeypatch.setattr(asyncio.log.logger, "debug", fail)
    else:
        monkeypatch.setattr(socket.socket, "getpeername", fail)

    async def main():
        server_side = Recorder()
        loop._listen(listening, lambda: server_side, 10, None, None)
        peer = socket.create_connection(listening.getsockname())
        peer.sendall(b"x")
        await server_side.until_received(1)
        peer.close()
        await server_side.until_event("lost")
        loop._stop_listening(listening)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        loop.run_until_complete(main())
    assert (where == "debug") == bool(reports)
    assert all(isinstance(report["exception"], ZeroDivisionError) for report in reports)
    reports.clear()


# --- exceptions out of protocols --------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
def test_a_connection_made_that_fails(debug):
    class Failing(Noting):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ValueError("made")

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Failing(notes))
        await loop.sock_sendall(peer, b"x")
        await protocol.until_event("data")
        peer.close()
        await protocol.until_event("lost")
        # Of the transport there are the first letters only, which are those of its class.
        notes[:] = [without_polling(note.split("connection_made(<")[0]) for note in notes]

    assert any("Exception in callback" in note for note in check(scenario, debug))


def test_a_connection_lost_that_fails():
    class Failing(Noting):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ValueError("lost")

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Failing(notes))
        peer.close()
        await protocol.until_event("lost")
        await asyncio.sleep(0)
        notes[:] = [note.split("Exception in callback")[0] for note in notes]

    assert check(scenario)[-1].startswith("reported")


def test_a_factory_that_makes_no_protocol():
    async def scenario(loop, notes):
        sock, peer = socket.socketpair()
        await notes.wait(loop.create_connection(object, sock=sock))
        sock.close()
        peer.close()

    assert "connection_made" in check(scenario)[0]


@pytest.mark.parametrize("method", ["connection_made", "datagram_received", "error_received", "connection_lost"])
def test_a_datagram_protocol_that_fails(loop, reports, method):
    class Failing(asyncio.DatagramProtocol):
        pass

    called = asyncio.Event()

    def fail(*_):
        loop.call_soon(called.set)
        raise ZeroDivisionError

    setattr(Failing, method, fail)

    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            transport, _ = await loop.create_datagram_endpoint(Failing, remote_addr=peer.getsockname())
            peer.sendto(b"x", transport.get_extra_info("sockname"))
        if method == "error_received":
            transport.sendto(b"to nobody")
        if method == "connection_lost":
            transport.close()
        await asyncio.wait_for(called.wait(), 20)
        transport.abort()

    loop.run_until_complete(main())
    report = reports.pop()
    assert report["message"].startswith("Exception in callback") and isinstance(report["exception"], ZeroDivisionError)
    reports.clear()  # error_received() may be called twice


def test_what_ends_a_datagram_transport():
    async def scenario(loop, notes):
        for address in (None, 5, ("127.0.0.1",), ("127.0.0.1", "port"), ("127.0.0.1", 99999)):
            protocol = Noting(notes)
            transport, _ = await loop.create_datagram_endpoint(lambda protocol=protocol: protocol, ("127.0.0.1", 0))
            transport.sendto(b"x", address)
            await protocol.until_event("lost")

    assert "'protocol'" in check(scenario)[0]


# --- writing ----------------------------------------------------------------------------------------------------------


def test_limits_of_the_write_buffer():
    limits = [
        (),
        (5,),
        (5, 2),
        (None, 7),
        (2, 5),
        (-1,),
        (None, -1),
        (0,),
        (0, 0),
        ("x",),
        (8.0,),
        (-0.5,),
        (None, 2.5),
    ]

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Noting(notes))
        transport = protocol.transport
        for limit in limits:
            notes.call(transport.set_write_buffer_limits, *limit)
            low, high = transport.get_write_buffer_limits()
            notes(int(low), int(high))
        peer.close()
        await protocol.until_event("lost")

    check(scenario)


@only_bolide
def test_marks_that_are_no_whole_numbers(loop):
    """They are compared with numbers of bytes: what is behind the point makes no difference."""

    async def main():
        protocol, peer = await connected()
        protocol.transport.set_write_buffer_limits(10**30, 2.5)
        protocol.transport.write(b"x" * 8_000_000)
        protocol.transport.set_write_buffer_limits(1000.5)
        assert protocol.events[-1] == "pause"
        assert protocol.transport.get_write_buffer_limits() == (250, 1000)
        peer.setblocking(False)
        left = 8_000_000
        while left > 0:
            left -= len(await loop.sock_recv(peer, 1_000_000))
        await protocol.until_event("resume")
        peer.close()
        await protocol.until_event("lost")

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["after write_eof()", "after abort()", "open"])
def test_writes_that_are_refused(how):
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Noting(notes))
        transport = protocol.transport
        if how == "after write_eof()":
            transport.write_eof()
        if how == "after abort()":
            transport.abort()
        for data in (b"x", b"", bytearray(b"y"), memoryview(b""), "text", 5, None):
            notes.call(transport.write, data)
        for lines in ([b"x"], [], [b"x", "text"], [5], None, 5, (), [bytearray(b"x"), memoryview(b"y")]):
            notes.call(transport.writelines, lines)
        for _ in range(5):
            if how == "after abort()":
                transport.write(b"lost")
                transport.write(b"")
                transport.writelines([b"lost"])
        transport.abort()
        await protocol.until_event("lost")
        if how == "after abort()":
            transport.write(b"lost for sure")
        peer.close()

    notes = check(scenario)
    assert ("log WARNING socket.send() raised exception. " in notes) == (how == "after abort()")


@only_bolide
def test_writes_after_a_close_that_had_output_to_send(loop, caplog):
    """Asyncio's transport fails in its own code there, up to 3.13."""

    async def main():
        protocol, peer = await connected()
        protocol.transport.write(b"x" * 10_000_000)
        protocol.transport.close()
        peer.setblocking(False)
        while await loop.sock_recv(peer, 1_000_000):
            pass
        await protocol.until_event("lost")
        for _ in range(8):
            protocol.transport.write(b"lost")
        peer.close()

    loop.run_until_complete(main())
    assert "socket.send() raised exception" in caplog.text


@with_loop
async def test_writelines_writes_all_or_nothing():
    protocol, peer = await connected()
    with pytest.raises(TypeError):
        protocol.transport.writelines([b"not sent", "text"])
    protocol.transport.writelines([b"sent"])
    protocol.transport.close()
    assert await asyncio.to_thread(peer.recv, 100) == b"sent"
    peer.close()


# --- reading ----------------------------------------------------------------------------------------------------------

WRONG_BUFFERS = [b"read-only", bytearray(), memoryview(b"x"), memoryview(bytearray(9))[::2], "text", 5, None, [1, 2]]


@pytest.mark.parametrize("buffer", WRONG_BUFFERS, ids=lambda buffer: type(buffer).__name__)
def test_buffers_that_cannot_be_read_into(buffer):
    class Lending(BufferedRecorder):
        def __init__(self):
            super().__init__()
            self.buffer = buffer

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, Lending)
        await loop.sock_sendall(peer, b"x")
        await protocol.until_event("lost")
        notes(protocol.lost)
        peer.close()

    assert check(scenario)[0].startswith("reported")


class PausesInGetBuffer(BufferedRecorder):
    """Reads one buffer each time that it is told to."""

    def get_buffer(self, sizehint):
        self.transport.pause_reading()
        return super().get_buffer(sizehint)

    def buffer_updated(self, nbytes):
        super().buffer_updated(nbytes)
        asyncio.get_running_loop().call_soon(self.transport.resume_reading)


@with_loop
async def test_pause_in_get_buffer():
    """What was made room for comes all the same, and so does the end."""
    protocol, peer = await connected(lambda: PausesInGetBuffer(4))
    peer.sendall(b"ten bytes.")
    await protocol.until_received(10)
    peer.close()
    await protocol.until_event("lost")
    assert bytes(protocol.data) == b"ten bytes."
    assert protocol.events[-2:] == ["eof", "lost"]


@only_bolide
@with_loop
async def test_pause_in_get_buffer_with_tls():
    loop = asyncio.get_running_loop()
    protocol = PausesInGetBuffer(4)
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, ssl=authority().server())
    address = server.sockets[0].getsockname()
    transport, client = await loop.create_connection(
        Recorder, *address, ssl=authority().client(), server_hostname="localhost"
    )
    transport.write(b"ten bytes.")
    await protocol.until_received(10)
    transport.close()
    await client.until_event("lost")
    protocol.transport.abort()
    await protocol.until_event("lost")
    server.close()
    assert bytes(protocol.data) == b"ten bytes."


@with_loop
async def test_max_size_limits_what_is_read_at_once():
    class Pieces(Recorder):
        def __init__(self):
            super().__init__()
            self.pieces = []

        def data_received(self, data):
            self.pieces.append(data)
            super().data_received(data)

    protocol, peer = await connected(Pieces)
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


# --- information ------------------------------------------------------------------------------------------------------


def test_addresses_and_repr_after_the_close():
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Noting(notes))
        notes(protocol.transport)
        protocol.transport.pause_reading()
        notes(protocol.transport)
        protocol.transport.abort()
        await protocol.until_event("lost")
        notes(protocol.transport)
        notes(protocol.transport.get_extra_info("sockname"), protocol.transport.get_extra_info("peername"))
        peer.close()

    assert "('127.0.0.1', PORT)" in check(scenario)[-1]


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


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_limits_of_the_read_buffer_with_tls():
    limits = [(), (5,), (5, 2), (None, 7), (2, 5), (-1,), (0,), ("x",)]

    async def scenario(loop, notes):
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=authority().server())
        address = server.sockets[0].getsockname()
        transport, protocol = await loop.create_connection(
            Recorder, *address, ssl=authority().client(), server_hostname="localhost"
        )
        notes(transport.get_read_buffer_size(), transport.get_read_buffer_limits())
        for limit in limits:
            notes.call(transport.set_read_buffer_limits, *limit)
            notes(transport.get_read_buffer_limits())
        notes(hasattr(transport, "max_size"))
        transport.abort()
        await protocol.until_event("lost")
        server.close()

    check(scenario)


@with_loop
async def test_plain_transports_have_no_read_buffer():
    protocol, peer = await connected()
    assert not hasattr(protocol.transport, "get_read_buffer_limits")
    peer.close()
    await protocol.until_event("lost")


@pytest.mark.parametrize("how", ["cancel", "timeout", "close", "abort", "reset", "no TLS", "end"])
def test_a_protocol_during_start_tls(how):
    """asyncio tells it of a handshake that failed, but not of one that was given up."""

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Noting(notes))
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
        await protocol.until_event("lost") if how in ("no TLS", "end") else await asyncio.sleep(0.05)
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
            try:
                while await loop.sock_recv(peer, 100):
                    pass
            except ConnectionError:
                pass
        while debug and not any(note.startswith("reported") for note in notes):
            await asyncio.sleep(0.01)  # asyncio reports it from a task, some turns later
        server.close()
        # asyncio has two objects to tell of an EOF.
        notes[:] = [note for note in notes if note.startswith("reported") or "SSL handshake failed" in note]
        notes[:] = [note.replace(" (_ssl.c", "(").split("_ssl.c")[0] for note in notes]

    assert any("Error on transport creation" in note for note in check(scenario, debug)) == debug


def test_handshakes_in_debug_mode():
    async def scenario(loop, notes):
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=authority().server())
        address = server.sockets[0].getsockname()
        transport, protocol = await loop.create_connection(
            Recorder, *address, ssl=authority().client(), server_hostname="localhost"
        )
        transport.close()
        await protocol.until_event("lost")
        server.close()
        await asyncio.wait_for(server.wait_closed(), 20)
        notes[:] = sorted(note for note in notes if "SSL handshake" in note)

    assert len(check(scenario, debug=True)) == 4


def test_writes_to_a_lost_connection_with_tls():
    async def scenario(loop, notes):
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=authority().server())
        address = server.sockets[0].getsockname()
        transport, protocol = await loop.create_connection(
            Recorder, *address, ssl=authority().client(), server_hostname="localhost"
        )
        transport.close()
        for i in range(8):
            notes(i)
            transport.write(b"lost")
        transport.writelines([b"lost"])
        await protocol.until_event("lost")
        transport.write(b"lost")
        server.close()

    assert "log WARNING SSL connection is closed " in check(scenario)


@pytest.mark.parametrize("buffer", [b"read-only", 5, None], ids=lambda buffer: type(buffer).__name__)
def test_buffers_that_cannot_be_read_into_with_tls(buffer):
    class Lending(BufferedRecorder):
        def __init__(self):
            super().__init__()
            self.buffer = buffer

    async def scenario(loop, notes):
        protocol = Lending()
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, ssl=authority().server())
        address = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(
            Recorder, *address, ssl=authority().client(), server_hostname="localhost"
        )
        transport.write(b"x")
        await protocol.until_event("lost")
        notes(protocol.lost)
        transport.abort()
        await client.until_event("lost")
        server.close()

    assert check(scenario)[0].startswith("reported Fatal error on SSL protocol")


@with_loop
async def test_the_hint_of_get_buffer_with_tls():
    """So many bytes at least are known to have come; -1: any number."""
    loop = asyncio.get_running_loop()
    protocol = BufferedRecorder(1)
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, ssl=authority().server())
    address = server.sockets[0].getsockname()
    context = authority().client()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    transport, client = await loop.create_connection(Recorder, *address, ssl=context, server_hostname="localhost")
    transport.write(b"x" * 100)
    await protocol.until_received(100)
    assert protocol.hints[0] >= 100 and min(protocol.hints) >= -1 and max(protocol.hints) < 1000
    transport.close()
    await client.until_event("lost")
    server.close()
