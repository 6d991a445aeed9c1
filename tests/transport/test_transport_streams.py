"""Stream transports over TCP and Unix sockets: the life of a connection, reading, the end of either way."""

import asyncio
import errno
import gc
import os
import socket
import weakref

import pytest
from support.loops import LOOP, only_bolide, with_loop
from support.protocols import Keeper, Recorder, closed, connected, connected_pair, drain, receive_all, reset


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
    protocol.transport.write(b"in time")
    received = await asyncio.to_thread(receive_all, peer)
    assert len(received) == 5_000_007
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


@only_bolide
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
