"""Protocols of stream transports: of every kind, replaced, failing, and closing in any of their methods."""

import asyncio
import contextvars
import socket
import ssl

import pytest
from support.certificates import authority
from support.loops import LOOP, not_uvloop, only_bolide, with_loop
from support.protocols import BufferedRecorder, Recorder, closed, connected, drain, receive_all
from support.tls_peers import connect, serving


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


@only_bolide
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
    async with serving(lambda: PausesInGetBuffer(4)) as (address, protocols, _):
        client = await connect(address)
        client.transport.write(b"ten bytes.")
        await protocols[0].until_received(10)
        await closed(client, *protocols)
    assert bytes(protocols[0].data) == b"ten bytes."


@not_uvloop
@with_loop
async def test_the_hint_of_get_buffer_with_tls():
    """So many bytes at least are known to have come; -1: any number."""
    context = authority().client()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    protocol = BufferedRecorder(1)
    async with serving(lambda: protocol) as (address, _, _):
        client = await connect(address, context=context)
        client.transport.write(b"x" * 100)
        await protocol.until_received(100)
        assert protocol.hints[0] >= 100 and min(protocol.hints) >= -1 and max(protocol.hints) < 1000
        await closed(client)
