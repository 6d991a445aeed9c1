"""connect_read_pipe() and connect_write_pipe()."""

import asyncio
import os
import socket

import pytest
from support.loops import with_loop
from support.protocols import Recorder


def pipe():
    read, write = os.pipe()
    return os.fdopen(read, "rb", 0), os.fdopen(write, "wb", 0)


@with_loop
async def test_reading():
    loop = asyncio.get_running_loop()
    read, write = pipe()
    transport, protocol = await loop.connect_read_pipe(Recorder, read)
    assert transport.get_extra_info("pipe") is read
    write.write(b"one")
    await protocol.until_received(3)
    transport.pause_reading()
    assert not transport.is_reading()
    write.write(b"two")
    await asyncio.sleep(0.01)
    assert protocol.data == b"one"
    transport.resume_reading()
    await protocol.until_received(6)
    write.close()
    await protocol.until_event("lost")
    assert protocol.events[-2:] == ["eof", "lost"]
    assert protocol.lost is None
    assert transport.is_closing()


@with_loop
async def test_writing():
    loop = asyncio.get_running_loop()
    read, write = pipe()
    data = os.urandom(1_000_000)
    transport, protocol = await loop.connect_write_pipe(Recorder, write)
    transport.write(data)
    await protocol.until_event("pause")
    assert transport.get_write_buffer_size() > 0
    received = bytearray()
    while len(received) < len(data):
        received += await asyncio.to_thread(os.read, read.fileno(), 100_000)
    assert received == data
    await protocol.until_event("resume")
    transport.write_eof()
    assert await asyncio.to_thread(read.read, 1) == b""
    await protocol.until_event("lost")
    read.close()


@with_loop
async def test_a_reader_that_goes_away():
    loop = asyncio.get_running_loop()
    read, write = pipe()
    transport, protocol = await loop.connect_write_pipe(Recorder, write)
    read.close()
    await protocol.until_event("lost")
    transport.write(b"x")
    assert transport.is_closing()


@with_loop
async def test_aborting():
    loop = asyncio.get_running_loop()
    read, write = pipe()
    transport, protocol = await loop.connect_write_pipe(Recorder, write)
    transport.write(b"x" * 1_000_000)
    transport.abort()
    await protocol.until_event("lost")
    read.close()


@with_loop
async def test_sockets_and_terminals_are_pipes_too():
    loop = asyncio.get_running_loop()
    first, second = socket.socketpair()
    with second:
        transport, protocol = await loop.connect_read_pipe(Recorder, first)
        second.sendall(b"x")
        await protocol.until_received(1)
        transport.close()
        await protocol.until_event("lost")
    master, slave = os.openpty()
    transport, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(master, "rb", 0))
    os.write(slave, b"line\n")
    await protocol.until_received(5)
    transport.close()
    await protocol.until_event("lost")
    os.close(slave)


def test_a_regular_file_is_none(loop, tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    for connect, mode in ((loop.connect_read_pipe, "rb"), (loop.connect_write_pipe, "wb")):
        with path.open(mode) as file, pytest.raises(ValueError, match="pipe"):
            loop.run_until_complete(connect(asyncio.Protocol, file))
