"""asyncio's streams on the loop's transports: input goes to the reader as if StreamReader.feed_data() had got it."""

import asyncio
import os
import socket

import pytest
from support.loops import with_loop
from support.protocols import Recorder, reset

# A reader's limit: it pauses its transport when it holds more than twice as much.
LIMIT = 4096


async def open_reader(limit=LIMIT):
    ours, peer = socket.socketpair()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
    return reader, writer, peer


async def until_buffered(reader, size):
    async with asyncio.timeout(10):
        while len(reader._buffer) < size:
            await asyncio.sleep(0)


@pytest.mark.parametrize("size", [1, 100, 8191, 8192, 8193, 65536, 65537, 98303, 98304, 98305, 200_000])
@with_loop
async def test_what_is_sent_is_read(size):
    reader, writer, peer = await open_reader()
    loop = asyncio.get_running_loop()
    for _ in range(5):
        data = os.urandom(size)
        sending = asyncio.create_task(loop.sock_sendall(peer, data))
        assert await reader.readexactly(size) == data
        await sending
    peer.close()
    assert await reader.read() == b""
    writer.close()


@with_loop
async def test_large_and_small_pieces_in_turn():
    reader, writer, peer = await open_reader()
    loop = asyncio.get_running_loop()
    pieces = [os.urandom(size) for size in (50_000, 1, 50_000, 9000, 3, 120_000, 0, 8192, 5)] * 5
    sending = asyncio.create_task(loop.sock_sendall(peer, b"".join(pieces)))
    for piece in pieces:
        assert await reader.readexactly(len(piece)) == piece
    await sending
    peer.send(b"line\nrest")
    assert await reader.readline() == b"line\n"
    peer.close()
    assert await reader.read() == b"rest"
    writer.close()


# More and less than before, and small ones for so long that large ones are not expected.
SIZES = [50_000, 50_000, 8192, 3000, 7, 60_000, 99_000, 300_000, 1, 300_000, *[5] * 20, 9000, *[100_000, 2] * 10, 2047]


@with_loop
async def test_each_message_of_sizes_that_change_is_whole():
    reader, writer, peer = await open_reader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    for size in SIZES:
        data = os.urandom(size)
        sending = asyncio.create_task(loop.sock_sendall(peer, data))
        assert await reader.readexactly(size) == data
        await sending
    peer.close()
    writer.close()


@with_loop
async def test_a_reader_that_is_full_pauses_and_resumes():
    reader, writer, peer = await open_reader()
    loop = asyncio.get_running_loop()
    data = os.urandom(1_000_000)
    sending = asyncio.create_task(loop.sock_sendall(peer, data))
    await until_buffered(reader, 2 * LIMIT + 1)
    assert not writer.transport.is_reading()
    received = b""
    while len(received) < len(data):
        received += await reader.read(LIMIT)
    assert received == data
    await sending
    assert writer.transport.is_reading()
    peer.close()
    writer.close()


@with_loop
async def test_a_reset_reaches_the_reader_after_large_reads():
    accepted = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: accepted.put_nowait(streams), "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    async with server:
        peer = socket.create_connection(server.sockets[0].getsockname())
        peer.setblocking(False)
        reader, writer = await accepted.get()
        for _ in range(3):
            sending = asyncio.create_task(loop.sock_sendall(peer, bytes(50_000)))
            assert await reader.readexactly(50_000) == bytes(50_000)
            await sending
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


@pytest.mark.parametrize("where", ["instance", "class"])
@with_loop
async def test_a_replaced_feed_data_is_called(where, monkeypatch):
    reader, writer, peer = await open_reader()
    original = asyncio.StreamReader.feed_data
    fed = []

    def feed_data(self, data):
        fed.append(bytes(data))
        original(self, data)

    peer.send(b"before")
    assert await reader.readexactly(6) == b"before"
    if where == "instance":
        monkeypatch.setattr(reader, "feed_data", lambda data: feed_data(reader, data))
    else:
        monkeypatch.setattr(asyncio.StreamReader, "feed_data", feed_data)
    for size in (10, 20_000, 20_000):
        peer.send(bytes(size))
        assert await reader.readexactly(size) == bytes(size)
    assert b"".join(fed) == bytes(40_010)
    peer.close()
    writer.close()


@with_loop
async def test_a_subclass_of_the_reader_is_fed_by_its_method():
    class Reader(asyncio.StreamReader):
        fed = 0

        def feed_data(self, data):
            self.fed += len(data)
            super().feed_data(data)

    loop = asyncio.get_running_loop()
    reader = Reader(loop=loop)
    ours, peer = socket.socketpair()
    transport, _ = await loop.create_connection(lambda: asyncio.StreamReaderProtocol(reader), sock=ours)
    for size in (10, 20_000, 20_000):
        peer.sendall(bytes(size))
        assert await reader.readexactly(size) == bytes(size)
    assert reader.fed == 40_010
    transport.close()
    peer.close()


@with_loop
async def test_data_after_feed_eof_is_refused_as_asyncio_does():
    loop = asyncio.get_running_loop()
    reported = []
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    reader, writer, peer = await open_reader()
    reader.feed_eof()
    peer.send(b"too late")
    async with asyncio.timeout(10):
        while not reported:
            await asyncio.sleep(0)
    assert isinstance(reported[0]["exception"], AssertionError)
    assert writer.transport.is_closing()
    peer.close()


@with_loop
async def test_a_view_of_the_readers_buffer_does_no_harm():
    loop = asyncio.get_running_loop()
    reported = []
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    reader, writer, peer = await open_reader(limit=1 << 20)
    peer.send(bytes(20_000))
    await until_buffered(reader, 20_000)
    view = memoryview(reader._buffer)
    peer.send(bytes(20_000))
    async with asyncio.timeout(10):
        while not reported:
            await asyncio.sleep(0)
    assert isinstance(reported[0]["exception"], BufferError)
    assert len(view) == 20_000
    view.release()
    peer.close()
    writer.close()


@with_loop
async def test_another_protocol_takes_over_from_a_reader():
    loop = asyncio.get_running_loop()
    reader, writer, peer = await open_reader()
    peer.send(bytes(20_000))
    assert await reader.readexactly(20_000) == bytes(20_000)
    recorder = Recorder()
    writer.transport.set_protocol(recorder)
    data = os.urandom(100_000)
    await loop.sock_sendall(peer, data)
    async with asyncio.timeout(10):
        while len(recorder.data) < len(data):
            await asyncio.sleep(0)
    assert bytes(recorder.data) == data
    peer.close()
    writer.transport.abort()


@pytest.mark.parametrize("size", [1, 8192, 65536, 100_000, 3_000_000])
@with_loop
async def test_protocols_get_all_bytes_and_may_keep_them(size):
    class Keeper(asyncio.Protocol):
        def __init__(self):
            self.pieces = []

        def data_received(self, data):
            self.pieces.append(data)

    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    transport, keeper = await loop.create_connection(Keeper, sock=ours)
    data = os.urandom(size)
    for number in range(1, 4):
        await loop.sock_sendall(peer, data)
        async with asyncio.timeout(10):
            while sum(map(len, keeper.pieces)) < number * size:
                await asyncio.sleep(0)
    assert b"".join(keeper.pieces) == data * 3
    assert all(type(piece) is bytes for piece in keeper.pieces)
    transport.close()
    peer.close()
