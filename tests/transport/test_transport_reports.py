"""What exception handlers and logs are told of transports: the same as on asyncio's own loop."""

import asyncio
import socket

import pytest
from support.loops import not_uvloop, only_bolide
from support.protocols import Recorder, accepted, reset
from support.side_by_side import Noting, check

pytestmark = not_uvloop


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
        protocol, peer = await accepted(lambda: Noting(notes))
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


@pytest.mark.parametrize("debug", [False, True])
def test_a_connection_made_that_fails(debug):
    class Failing(Noting):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ValueError("made")

    async def scenario(loop, notes):
        protocol, peer = await accepted(lambda: Failing(notes))
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
        protocol, peer = await accepted(lambda: Failing(notes))
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
