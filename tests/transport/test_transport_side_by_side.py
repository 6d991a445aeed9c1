"""What a program and its protocols see of transports: the same as on asyncio's own loop."""

import pytest
from support.loops import not_uvloop
from support.protocols import BufferedRecorder, accepted
from support.side_by_side import Noting, check

pytestmark = not_uvloop


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
        protocol, peer = await accepted(lambda: Noting(notes))
        transport = protocol.transport
        for limit in limits:
            notes.call(transport.set_write_buffer_limits, *limit)
            low, high = transport.get_write_buffer_limits()
            notes(int(low), int(high))
        peer.close()
        await protocol.until_event("lost")

    check(scenario)


@pytest.mark.parametrize("how", ["after write_eof()", "after abort()", "open"])
def test_writes_that_are_refused(how):
    async def scenario(loop, notes):
        protocol, peer = await accepted(lambda: Noting(notes))
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


WRONG_BUFFERS = [b"read-only", bytearray(), memoryview(b"x"), memoryview(bytearray(9))[::2], "text", 5, None, [1, 2]]


@pytest.mark.parametrize("buffer", WRONG_BUFFERS, ids=lambda buffer: type(buffer).__name__)
def test_buffers_that_cannot_be_read_into(buffer):
    async def scenario(loop, notes):
        protocol, peer = await accepted(BufferedRecorder)
        protocol.buffer = buffer
        await loop.sock_sendall(peer, b"x")
        await protocol.until_event("lost")
        notes(protocol.lost)
        peer.close()

    assert check(scenario)[0].startswith("reported")


def test_addresses_and_repr_after_the_close():
    async def scenario(loop, notes):
        protocol, peer = await accepted(lambda: Noting(notes))
        notes(protocol.transport)
        protocol.transport.pause_reading()
        notes(protocol.transport)
        protocol.transport.abort()
        await protocol.until_event("lost")
        notes(protocol.transport)
        notes(protocol.transport.get_extra_info("sockname"), protocol.transport.get_extra_info("peername"))
        peer.close()

    assert "('127.0.0.1', PORT)" in check(scenario)[-1]
