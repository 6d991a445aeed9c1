"""Writing to stream transports: what arrives, and what a reader that is slow does to the writer."""

import array
import asyncio
import contextvars
import socket

import pytest
from support.loops import LOOP, not_uvloop, only_bolide, with_loop
from support.protocols import Recorder, closed, connected, receive_all


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


@only_bolide
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


@pytest.mark.parametrize("lines", [5, [b"fine", "text"], [None]])
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


@only_bolide
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


@not_uvloop
@with_loop
async def test_writelines_writes_all_or_nothing():
    protocol, peer = await connected()
    with pytest.raises(TypeError):
        protocol.transport.writelines([b"not sent", "text"])
    protocol.transport.writelines([b"sent"])
    protocol.transport.close()
    assert await asyncio.to_thread(peer.recv, 100) == b"sent"
    peer.close()
