"""Stream transports over TCP and Unix sockets: what the protocol sees, and what leaves on the wire."""

import array
import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import socket
import struct
import weakref

import pytest
from support.loops import LOOP, only_bolide, with_loop
from support.protocols import BufferedRecorder, Recorder, closed, connected, connected_pair, receive_all


def reset(peer):
    """Close the socket with a reset instead of a FIN."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@with_loop
async def test_the_life_of_a_connection(kind):
    first, second = await connected_pair(kind=kind)
    first.transport.write(b"hello")
    await second.until_received(5)
    second.transport.write(b"world")
    await first.until_received(5)
    first.transport.close()
    assert first.transport.is_closing()
    await first.until_event("lost")
    await second.until_event("lost")
    assert first.events == ["made", "data", "lost"]
    assert second.events == ["made", "data", "eof", "lost"]
    assert first.lost is None and second.lost is None
    assert bytes(second.data) == b"hello" and bytes(first.data) == b"world"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"x" * 1023,
        b"x" * 1024,
        b"x" * 1025,
        b"x" * 5000,
        b"x" * 3_000_000,
        bytearray(b"abc" * 1000),
        memoryview(b"abc" * 1000),
        memoryview(b"abcdef" * 1000)[1::2],
        memoryview(array.array("I", range(1000))),
    ],
    ids=lambda data: f"{type(data).__name__}-{len(data)}",
)
@with_loop
async def test_what_is_written_arrives(data):
    protocol, peer = await connected()
    if LOOP != "bolide" and isinstance(data, memoryview) and (not data.contiguous or data.itemsize > 1):
        data = data.tobytes()
    protocol.transport.write(data)
    protocol.transport.close()
    received = await asyncio.to_thread(receive_all, peer)
    assert received == bytes(data)
    peer.close()


@with_loop
async def test_many_sizes_in_a_row_keep_their_order():
    protocol, peer = await connected()
    expected = bytearray()
    for number in range(3000):
        piece = bytes([number % 251]) * (number * 7919 % 2100)
        expected += piece
        if number % 5 == 4:
            protocol.transport.writelines([piece[:100], bytearray(piece[100:])])
        else:
            protocol.transport.write(piece)
    protocol.transport.close()
    assert await asyncio.to_thread(receive_all, peer) == expected
    peer.close()


class Keeper(Recorder):
    """Keeps each object that it is handed, as it was handed."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def data_received(self, data):
        self.pieces.append(data)
        super().data_received(data)


@with_loop
async def test_what_was_received_stays_as_it_was_whatever_comes_next():
    keeper, peer = await connected(Keeper)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    sizes = [50_000, 50_000, 8192, 3000, 7, 60_000, 99_000, 300_000, 1, 300_000, *[5] * 20, 9000, 100_000, 2, 2047]
    expected = b""
    for size in sizes:
        data = os.urandom(size)
        expected += data
        sending = asyncio.create_task(loop.sock_sendall(peer, data))
        await keeper.until_received(len(expected))
        await sending
    assert {type(piece) for piece in keeper.pieces} == {bytes}
    assert b"".join(keeper.pieces) == expected
    keeper.transport.abort()
    peer.close()


@with_loop
async def test_a_buffer_may_change_after_write():
    protocol, peer = await connected()
    buffer = bytearray(b"a" * 100_000)
    for letter in b"abcd":
        buffer[:] = bytes([letter]) * len(buffer)
        protocol.transport.write(buffer)
    buffer[:] = b"z" * len(buffer)
    protocol.transport.close()
    received = await asyncio.to_thread(receive_all, peer)
    assert received == b"".join(bytes([letter]) * len(buffer) for letter in b"abcd")
    peer.close()


@with_loop
async def test_a_bytearray_can_be_resized_after_write():
    protocol, peer = await connected()
    buffer = bytearray(b"a" * 4_000_000)
    protocol.transport.write(buffer)
    buffer.clear()
    protocol.transport.close()
    assert len(await asyncio.to_thread(receive_all, peer)) == 4_000_000
    peer.close()


@pytest.mark.parametrize("data", [None, "text", 5, [b"x"], object()])
@with_loop
async def test_write_refuses_what_is_not_bytes(data):
    protocol, peer = await connected()
    with pytest.raises(TypeError):
        protocol.transport.write(data)
    protocol.transport.write(b"fine")
    protocol.transport.close()
    assert await asyncio.to_thread(receive_all, peer) == b"fine"
    peer.close()


@pytest.mark.parametrize("lines", [None, 5, [b"fine", "text"], [None]])
@with_loop
async def test_writelines_refuses_what_is_not_bytes(lines):
    protocol, peer = await connected()
    with pytest.raises(TypeError):
        protocol.transport.writelines(lines)
    peer.close()
    await closed(protocol)


@with_loop
async def test_writelines_takes_any_iterable():
    protocol, peer = await connected()
    protocol.transport.writelines(bytes([letter]) for letter in b"generator ")
    protocol.transport.writelines((b"tuple", b"", b" "))
    protocol.transport.writelines([])
    protocol.transport.writelines([memoryview(b"list")])
    protocol.transport.close()
    assert await asyncio.to_thread(receive_all, peer) == b"generator tuple list"
    peer.close()


@with_loop
async def test_write_eof_leaves_the_other_way_open():
    protocol, peer = await connected()
    assert protocol.transport.can_write_eof()
    protocol.transport.write(b"question")
    protocol.transport.write_eof()
    protocol.transport.write_eof()
    assert await asyncio.to_thread(receive_all, peer) == b"question"
    with pytest.raises(RuntimeError):
        protocol.transport.write(b"more")
    with pytest.raises(RuntimeError):
        protocol.transport.writelines([b"more"])
    peer.sendall(b"answer")
    peer.close()
    await protocol.until_event("lost")
    assert bytes(protocol.data) == b"answer" and protocol.lost is None


@with_loop
async def test_write_eof_after_a_lot_of_output():
    protocol, peer = await connected()
    protocol.transport.write(b"x" * 5_000_000)
    protocol.transport.write_eof()
    assert len(await asyncio.to_thread(receive_all, peer)) == 5_000_000
    peer.close()
    await protocol.until_event("lost")


@with_loop
async def test_a_protocol_may_stay_after_the_peers_eof():
    protocol, peer = await connected()
    protocol.keep_open = True
    peer.shutdown(socket.SHUT_WR)
    await protocol.until_event("eof")
    assert not protocol.transport.is_closing()
    protocol.transport.write(b"still here")
    protocol.transport.close()
    assert await asyncio.to_thread(receive_all, peer) == b"still here"
    peer.close()
    await protocol.until_event("lost")
    assert protocol.events == ["made", "eof", "lost"]


@with_loop
async def test_close_sends_what_was_written():
    protocol, peer = await connected()
    protocol.transport.write(b"x" * 5_000_000)
    protocol.transport.close()
    protocol.transport.close()
    protocol.transport.write(b"too late")
    received = await asyncio.to_thread(receive_all, peer)
    if LOOP != "asyncio":
        assert len(received) == 5_000_000
    await protocol.until_event("lost")
    assert protocol.events.count("lost") == 1
    peer.close()


@with_loop
async def test_close_stops_reading():
    protocol, peer = await connected()
    protocol.transport.write(b"x" * 20_000_000)
    protocol.transport.close()
    peer.sendall(b"not to be seen")
    await asyncio.to_thread(drain, peer)
    peer.close()
    await protocol.until_event("lost")
    assert "data" not in protocol.events


@with_loop
async def test_abort_drops_what_was_written():
    protocol, peer = await connected()
    protocol.transport.write(b"x" * 50_000_000)
    protocol.transport.abort()
    assert protocol.transport.is_closing()
    protocol.transport.abort()
    protocol.transport.close()
    await protocol.until_event("lost")
    assert protocol.lost is None and protocol.events.count("lost") == 1
    peer.close()


@with_loop
async def test_connection_lost_comes_later_not_within_close():
    protocol, peer = await connected()
    protocol.transport.close()
    assert "lost" not in protocol.events
    await protocol.until_event("lost")
    peer.close()


@with_loop
async def test_a_reset_reaches_the_protocol():
    protocol, peer = await connected()
    reset(peer)
    await protocol.until_event("lost")
    assert isinstance(protocol.lost, ConnectionResetError)
    assert protocol.lost.errno == errno.ECONNRESET


@with_loop
async def test_writing_to_a_peer_that_is_gone():
    protocol, peer = await connected()
    protocol.transport.pause_reading()
    reset(peer)
    for _ in range(50):
        protocol.transport.write(b"x" * 1000)
        await asyncio.sleep(0)
    await protocol.until_event("lost")
    assert isinstance(protocol.lost, ConnectionResetError | BrokenPipeError)
    for _ in range(20):
        protocol.transport.write(b"dropped")


@with_loop
async def test_pause_and_resume_reading():
    protocol, peer = await connected()
    transport = protocol.transport
    assert transport.is_reading()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    peer.sendall(b"x" * 1000)
    await asyncio.sleep(0.05)
    assert not protocol.data
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    await protocol.until_received(1000)
    peer.close()
    await protocol.until_event("lost")
    assert not transport.is_reading()
    transport.pause_reading()
    transport.resume_reading()


@with_loop
async def test_pausing_in_connection_made():
    class Pausing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    protocol, peer = await connected(Pausing)
    peer.sendall(b"x")
    await asyncio.sleep(0.02)
    assert not protocol.data
    protocol.transport.resume_reading()
    await protocol.until_received(1)
    peer.close()
    await protocol.until_event("lost")


@with_loop
async def test_pausing_in_data_received_holds_back_the_rest():
    class Pausing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    protocol, peer = await connected(Pausing)
    sender = asyncio.to_thread(peer.sendall, b"x" * 3_000_000)
    task = asyncio.ensure_future(sender)
    await protocol.until_event("data")
    seen = len(protocol.data)
    await asyncio.sleep(0.02)
    assert len(protocol.data) == seen
    while len(protocol.data) < 3_000_000:
        protocol.transport.resume_reading()
        await protocol.until(lambda self: not self.transport.is_reading())
    await task
    peer.close()
    await closed(protocol)


@with_loop
async def test_a_slow_reader_pauses_the_writer():
    protocol, peer = await connected()
    transport = protocol.transport
    transport.write(b"x" * 20_000_000)
    assert protocol.events == ["made", "pause"]
    assert transport.get_write_buffer_size() > 0
    transport.write(b"y")
    assert protocol.events == ["made", "pause"]
    reader = asyncio.create_task(asyncio.to_thread(receive_all, peer))
    await protocol.until_event("resume")
    assert transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[0]
    transport.close()
    assert len(await reader) == 20_000_001
    await protocol.until_event("lost")
    assert protocol.events == ["made", "pause", "resume", "lost"]
    peer.close()


@with_loop
async def test_writing_from_data_received_and_being_paused_there():
    """Protocol methods nest: pause_writing() is called from within data_received()."""
    var = contextvars.ContextVar("var", default="none")
    seen = []

    class Flood(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"x" * 20_000_000)
            seen.append(self.events[-1])

        def pause_writing(self):
            super().pause_writing()
            seen.append(var.get())

    var.set("of the connection")
    protocol, peer = await connected(Flood)
    peer.sendall(b"go")
    peer.shutdown(socket.SHUT_WR)
    await protocol.until_event("eof")
    assert len(await asyncio.to_thread(receive_all, peer)) == 20_000_000
    await protocol.until_event("lost")
    assert seen == ["of the connection", "pause"]
    peer.close()


@with_loop
async def test_a_protocol_that_pumps_from_resume_writing():
    class Pump(Recorder):
        left = 200

        def resume_writing(self):
            super().resume_writing()
            while self.left and self.events[-1] == "resume":
                self.left -= 1
                self.transport.write(b"x" * 100_000)
            if not self.left:
                self.transport.close()

    protocol, peer = await connected(Pump)
    reader = asyncio.create_task(asyncio.to_thread(receive_all, peer))
    protocol.transport.set_write_buffer_limits(high=0)
    protocol.transport.write(b"x" * 10_000_000)
    assert len(await reader) == 10_000_000 + 200 * 100_000
    await protocol.until_event("lost")
    peer.close()


@with_loop
async def test_write_buffer_limits():
    protocol, peer = await connected()
    transport = protocol.transport
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    transport.set_write_buffer_limits(low=1000)
    assert transport.get_write_buffer_limits() == (1000, 4000)
    transport.set_write_buffer_limits(high=3000, low=2000)
    assert transport.get_write_buffer_limits() == (2000, 3000)
    transport.set_write_buffer_limits()
    assert transport.get_write_buffer_limits() == (16384, 65536)
    for wrong in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}):
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(**wrong)
    with pytest.raises(TypeError):
        transport.set_write_buffer_limits(high="many")
    assert transport.get_write_buffer_limits() == (16384, 65536)
    await closed(protocol)
    peer.close()


@with_loop
async def test_extra_info():
    protocol, peer = await connected()
    transport = protocol.transport
    sock = transport.get_extra_info("socket")
    assert sock.fileno() >= 0 and sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert transport.get_extra_info("sockname") == peer.getpeername() == sock.getsockname()
    assert transport.get_extra_info("peername") == peer.getsockname() == sock.getpeername()
    assert transport.get_extra_info("nothing") is None
    assert transport.get_extra_info("nothing", 5) == 5
    assert transport.get_extra_info(name="nothing", default=6) == 6
    assert transport.get_extra_info("sslcontext") is None
    name = transport.get_extra_info("sockname")
    await closed(protocol)
    assert transport.get_extra_info("sockname") == name
    peer.close()


@with_loop
async def test_peername_after_the_peer_has_gone():
    """Access logs ask for it at the very end."""
    protocol, peer = await connected()
    name = peer.getsockname()
    reset(peer)
    await protocol.until_event("lost")
    assert protocol.transport.get_extra_info("peername") == name


@with_loop
async def test_set_protocol():
    first, second = Recorder(), Recorder()
    protocol, peer = await connected(lambda: first)
    transport = protocol.transport
    assert transport.get_protocol() is first
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    peer.sendall(b"for the second")
    await second.until_received(14)
    buffered = BufferedRecorder()
    transport.set_protocol(buffered)
    peer.sendall(b"for the buffered")
    await buffered.until_received(16)
    transport.set_protocol(first)
    peer.close()
    await first.until_event("lost")
    assert first.events == ["made", "eof", "lost"]
    assert second.events == ["data"] and buffered.events == ["data"]


@with_loop
async def test_set_protocol_within_data_received():
    """As HTTP libraries do on an upgrade."""
    second = Recorder()

    class Upgrading(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(second)

    protocol, peer = await connected(Upgrading)
    peer.sendall(b"upgrade")
    await protocol.until_received(7)
    peer.sendall(b"new")
    await second.until_received(3)
    peer.close()
    await second.until_event("lost")


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@with_loop
async def test_buffered_protocols(size):
    protocol, peer = await connected(lambda: BufferedRecorder(size))
    expected = bytes(range(256)) * (4 if size == 1 else 4000)
    writer = asyncio.create_task(asyncio.to_thread(peer.sendall, expected))
    await protocol.until_received(len(expected))
    await writer
    assert bytes(protocol.data) == expected
    assert set(protocol.hints) == {-1} or LOOP == "uvloop"
    peer.close()
    await protocol.until_event("lost")
    assert protocol.lost is None


@pytest.mark.parametrize("buffer", [bytearray(), b"read-only", 5, None], ids=["empty", "read-only", "int", "None"])
def test_buffered_protocols_with_a_wrong_buffer(loop, reports, buffer):
    async def main():
        protocol, peer = await connected(BufferedRecorder)
        protocol.buffer = buffer
        peer.sendall(b"x")
        await protocol.until_event("lost")
        assert isinstance(protocol.lost, Exception)
        peer.close()

    loop.run_until_complete(main())
    context = reports.pop()
    assert "get_buffer" in context["message"] and isinstance(context["exception"], Exception)


@pytest.mark.parametrize("kind", [ValueError, KeyError, asyncio.CancelledError])
@pytest.mark.parametrize("method", ["data_received", "eof_received", "get_buffer", "buffer_updated"])
def test_a_protocol_method_that_fails_closes_the_connection(loop, reports, method, kind):
    error = kind("of the protocol")

    def fail(*_):
        raise error

    async def main():
        make = BufferedRecorder if "buffer" in method else Recorder
        protocol, peer = await connected(make)
        setattr(protocol, method, fail)
        peer.sendall(b"x")
        if method == "eof_received":
            peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.lost is error
        peer.close()

    loop.run_until_complete(main())
    assert reports.pop()["exception"] is error


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing", "connection_lost"])
def test_a_protocol_method_that_fails_is_reported(loop, reports, method):
    error = ValueError("of the protocol")

    async def main():
        protocol, peer = await connected()
        original = getattr(protocol, method)

        def fail(*arguments):
            original(*arguments)
            raise error

        setattr(protocol, method, fail)
        protocol.transport.write(b"x" * 20_000_000)
        protocol.transport.close()
        assert len(await asyncio.to_thread(receive_all, peer)) == 20_000_000
        await protocol.until_event("lost")
        peer.close()

    loop.run_until_complete(main())
    assert reports.pop()["exception"] is error


@with_loop
async def test_protocol_methods_keep_the_context_of_the_connection():
    var = contextvars.ContextVar("var", default="none")
    seen = {}

    class Looking(Recorder):
        def _note(self, event):
            seen[event] = var.get()
            super()._note(event)

    var.set("of the connection")
    protocol, peer = await connected(Looking)
    var.set("changed since")
    peer.sendall(b"x")
    peer.shutdown(socket.SHUT_WR)
    await protocol.until_event("lost")
    peer.close()
    assert seen == dict.fromkeys(["made", "data", "eof", "lost"], "of the connection")


@with_loop
async def test_everything_after_the_end_is_harmless():
    protocol, peer = await connected()
    transport = protocol.transport
    await closed(protocol)
    peer.close()
    transport.write(b"x")
    transport.writelines([b"x"])
    transport.write_eof()
    transport.close()
    transport.abort()
    transport.pause_reading()
    transport.resume_reading()
    transport.set_write_buffer_limits(1, 1)
    transport.get_extra_info("socket")
    transport.get_extra_info("peername")
    assert transport.get_write_buffer_size() == 0
    assert transport.is_closing() and not transport.is_reading()
    repr(transport)
    transport.set_protocol(Recorder())


@with_loop
async def test_closing_in_every_callback():
    """Whatever a protocol method does, the transport stands it."""
    for method in ("connection_made", "data_received", "eof_received", "pause_writing", "resume_writing"):
        for action in ("close", "abort"):

            class Closing(Recorder):
                def _note(self, event, method=method, action=action):
                    super()._note(event)
                    names = {"connection_made": "made", "data_received": "data", "eof_received": "eof"}
                    if event == names.get(method, method.removesuffix("_writing")):
                        getattr(self.transport, action)()

            protocol, peer = await connected(Closing)
            if method.endswith("writing"):
                reader = asyncio.create_task(asyncio.to_thread(drain, peer))
                protocol.transport.write(b"x" * 20_000_000)
                await protocol.until_event("lost")
                await reader
            else:
                try:
                    peer.sendall(b"x")
                    peer.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                await protocol.until_event("lost")
            assert protocol.events[-1] == "lost" and protocol.events.count("lost") == 1
            peer.close()


def drain(peer):
    with contextlib.suppress(ConnectionResetError):
        receive_all(peer)


@with_loop
async def test_nothing_keeps_a_closed_connection_alive():
    protocol, peer = await connected()
    transport, protocol_alive = weakref.ref(protocol.transport), weakref.ref(protocol)
    await closed(protocol)
    peer.close()
    del protocol
    await asyncio.sleep(0)
    gc.collect()
    assert transport() is None and protocol_alive() is None


@with_loop
async def test_a_connection_that_nobody_holds_lives_on():
    """Its loop holds it: data arrives, the end is told."""
    protocol, peer = await connected()
    done = asyncio.get_running_loop().create_future()
    protocol.data_received = lambda data: done.set_result(data)
    protocol.transport = None
    del protocol
    gc.collect()
    peer.sendall(b"still there")
    assert await done == b"still there"
    peer.close()


def test_a_loop_that_is_closed_with_open_connections(recwarn):
    from support.loops import new_event_loop

    loop = new_event_loop()

    async def main():
        protocol, peer = await connected()
        protocol.transport.write(b"x" * 20_000_000)
        return protocol, peer

    protocol, peer = loop.run_until_complete(main())
    loop.close()
    assert "lost" not in protocol.events
    transport = protocol.transport
    if LOOP == "bolide":
        transport.write(b"x")
        transport.close()
        transport.abort()
        repr(transport)
        transport.get_extra_info("socket")
        with pytest.raises((RuntimeError, OSError, ValueError)):
            transport.resume_reading()
            loop.run_until_complete(asyncio.sleep(0))
    peer.close()
    del protocol, transport
    gc.collect()


@with_loop
async def test_repr_tells_the_state():
    protocol, peer = await connected()
    texts = [repr(protocol.transport)]
    protocol.transport.close()
    texts.append(repr(protocol.transport))
    await protocol.until_event("lost")
    texts.append(repr(protocol.transport))
    assert len(set(texts)) >= 2
    assert "clos" in texts[1] and "closed" in texts[2]
    peer.close()


@only_bolide
@with_loop
async def test_transports_are_asyncios_transports():
    import bolide

    protocol, peer = await connected()
    assert isinstance(protocol.transport, asyncio.Transport)
    assert isinstance(protocol.transport, bolide.StreamTransport)
    with pytest.raises(TypeError):
        bolide.StreamTransport()
    await closed(protocol)
    peer.close()


@with_loop
async def test_urgent_interleaving_of_both_ways():
    """Megabytes both ways at once, through a protocol that echoes."""

    class Echo(Recorder):
        def data_received(self, data):
            self.transport.write(data)

        def pause_writing(self):
            self.transport.pause_reading()

        def resume_writing(self):
            self.transport.resume_reading()

    first, second = await connected_pair()
    second.transport.set_protocol(echo := Echo())
    echo.transport = second.transport
    payload = bytes(range(256)) * 40_000
    first.transport.write(payload)
    await first.until_received(len(payload))
    assert bytes(first.data) == payload
    await closed(first)
    await echo.until_event("lost")
