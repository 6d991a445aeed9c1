"""How transports end: when, in which order and with what left of them, the same as those of asyncio's own loop."""

import asyncio
import contextlib
import gc
import os
import socket
import struct
import tempfile
import threading
import weakref

import pytest
from support.certificates import authority
from support.loops import LOOP, new_event_loop, only_bolide, with_loop
from support.protocols import BufferedRecorder, Recorder, connected, receive_all
from support.side_by_side import check

pytestmark = pytest.mark.skipif(LOOP == "uvloop", reason="has an order of its own")


def turns(loop, notes, count=8, until_lost=None):
    """Note the loop's next turns, to the end of that protocol: what is scheduled now comes in the first of them."""

    def turn(number):
        if until_lost is not None and "lost" in until_lost.events:
            return
        notes("turn", number)
        if number < count:
            loop.call_soon(turn, number + 1)

    loop.call_soon(turn, 1)


def describe_socket(notes, transport):
    sock = transport.get_extra_info("socket", "no socket")
    if isinstance(sock, str):
        notes(sock)
        return
    notes(type(sock).__name__, sock.family, sock.type, "open" if sock.fileno() >= 0 else "closed")
    for method, *args in (["getpeername"], ["getsockname"], ["getsockopt", socket.SOL_SOCKET, socket.SO_ERROR]):
        notes.call(getattr(sock, method), *args)


class Ending(Recorder):
    """Notes its end, and in it what there is of the transport."""

    def __init__(self, notes, tells=True):
        super().__init__()
        self.notes, self.tells = notes, tells

    def eof_received(self):
        self.notes("eof")
        return super().eof_received()

    def connection_lost(self, exc):
        self.notes("lost", exc)
        if self.tells:
            transport = self.transport
            self.notes(transport.is_closing(), transport.get_write_buffer_size(), transport.get_protocol() is self)
            describe_socket(self.notes, transport)
        super().connection_lost(exc)


class BufferedEnding(Ending, BufferedRecorder):
    pass


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


async def rest_of(loop, peer):
    data = bytearray()
    while piece := await loop.sock_recv(peer, 1_000_000):
        data += piece
    return bytes(data)


# --- stream sockets: the order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Ending, BufferedEnding])
@pytest.mark.parametrize("output", [b"", b"output"])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_connection_lost_comes_in_the_order_of_call_soon(make, how, output):
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: make(notes))
        loop.call_soon(notes, "scheduled before")
        protocol.transport.write(output)
        getattr(protocol.transport, how)()
        loop.call_soon(notes, "scheduled after")
        turns(loop, notes)
        notes("ended", protocol.transport.is_closing(), protocol.transport.get_protocol() is protocol)
        await protocol.until_event("lost")
        notes(await rest_of(loop, peer))
        peer.close()

    notes = check(scenario)
    seen = [note for note in notes if note.startswith(("sched", "lost", "turn 1", "ended"))]
    assert seen == ["ended True True", "scheduled before", "lost None", "scheduled after", "turn 1"]


def test_two_connections_are_lost_in_the_order_of_their_ends():
    async def scenario(loop, notes):
        ends = []
        for name in "ab":
            protocol, peer = await accepted(loop, lambda: Ending(notes))
            protocol.connection_lost = lambda exc, name=name: notes("lost", name)
            ends.append((protocol, peer))
        (first, _), (second, _) = ends
        second.transport.close()
        loop.call_soon(notes, "between")
        first.transport.abort()
        turns(loop, notes, 3)
        for _ in range(5):
            await asyncio.sleep(0)
        for _, peer in ends:
            peer.close()

    assert check(scenario)[:3] == ["lost b", "between", "lost a"]


def test_an_end_within_callbacks_of_the_protocol():
    class EndsInDataReceived(Ending):
        def data_received(self, data):
            self.loop.call_soon(self.notes, "scheduled before")
            self.transport.write(b"answer")
            self.transport.close()
            turns(self.loop, self.notes, 4)
            super().data_received(data)

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: EndsInDataReceived(notes))
        protocol.loop = loop
        await loop.sock_sendall(peer, b"x")
        await protocol.until_event("lost")
        notes(await rest_of(loop, peer))
        peer.close()

    assert check(scenario)[0:2] == ["scheduled before", "lost None"]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_an_end_before_connection_made(how):
    async def scenario(loop, notes):
        left, right = socket.socketpair()
        protocol = Ending(notes)
        transport = loop._make_socket_transport(left, protocol)
        getattr(transport, how)()
        turns(loop, notes, 4)
        await protocol.until_event("lost")
        notes(protocol.events)
        right.close()

    assert "['made', 'lost']" in check(scenario)


def test_the_end_of_the_peer():
    class Turning(Ending):
        def eof_received(self):
            turns(self.loop, self.notes, 4)
            return super().eof_received()

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Turning(notes))
        protocol.loop = loop
        peer.close()
        await protocol.until_event("lost")

    assert check(scenario)[:4] == ["eof", "turn 1", "lost None", "True 0 True"]


def test_a_connection_that_is_reset():
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Ending(notes))
        reset(peer)
        await protocol.until_event("lost")

    assert check(scenario)[0].startswith("lost ConnectionResetError")


@pytest.mark.parametrize("make", [Ending, BufferedEnding])
def test_a_protocol_that_fails_has_its_output_sent(make):
    class Failing(make):
        def data_received(self, data):
            self.transport.write(b"what is wrong")
            raise ValueError("data")

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Failing(notes))
        await loop.sock_sendall(peer, b"x")
        await protocol.until_event("lost")
        notes(await rest_of(loop, peer))
        peer.close()

    assert check(scenario)[-1] == "b'what is wrong'"


def test_connection_lost_that_fails_leaves_nothing_open():
    class Failing(Ending):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ValueError("lost")

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Failing(notes))
        transport = protocol.transport
        transport.close()
        notes(await rest_of(loop, peer))
        describe_socket(notes, transport)
        notes[:] = [note.split("Exception in callback")[0] for note in notes]
        peer.close()

    assert any(note.startswith("reported") for note in check(scenario))


@pytest.mark.parametrize("stage", ["after the close", "in connection_lost()"])
def test_wait_closed_of_a_server(stage):
    async def scenario(loop, notes):
        made = loop.create_future()

        class Served(Ending):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.set_result(self)

            def connection_lost(self, exc):
                if stage == "in connection_lost()":
                    server.close()
                super().connection_lost(exc)

        server = await loop.create_server(lambda: Served(notes), "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
        protocol = await made
        if stage == "after the close":
            server.close()
        task = asyncio.ensure_future(server.wait_closed())
        task.add_done_callback(lambda _: notes("server closed"))
        await asyncio.sleep(0)
        protocol.transport.close()
        turns(loop, notes, 4)
        await asyncio.wait_for(task, 20)
        peer.close()

    check(scenario)


# --- stream sockets: what is left -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["before", "after"])
@pytest.mark.parametrize("kind", ["accepted", "connected", "unix", "given"])
def test_the_socket_of_a_transport_that_has_ended(kind, asked):
    async def scenario(loop, notes):
        protocol = Ending(notes, tells=asked == "before")
        path = "no path"
        with contextlib.ExitStack() as stack:
            if kind == "unix":
                path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "longer than a TCP address")
                listening = stack.enter_context(socket.socket(socket.AF_UNIX))
                listening.bind(path)
                listening.listen()
                await loop.create_unix_connection(lambda: protocol, path)
            elif kind == "accepted":
                server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
                stack.callback(server.close)
                stack.enter_context(socket.create_connection(server.sockets[0].getsockname()))
                await protocol.until_event("made")
            else:
                listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                if kind == "given":
                    given = socket.create_connection(listening.getsockname())
                    await loop.create_connection(lambda: protocol, sock=given)
                else:
                    await loop.create_connection(lambda: protocol, *listening.getsockname())
            transport = protocol.transport
            transport.close()
            await protocol.until_event("lost")
            await asyncio.sleep(0)
            describe_socket(notes, transport)
            notes(transport.get_protocol(), transport.is_closing(), transport.get_write_buffer_size())
            sock = transport.get_extra_info("socket")
            notes(sock is transport.get_extra_info("socket"), sock)
            for name in ("sockname", "peername", "other"):
                notes(name, transport.get_extra_info(name, "default"))
            notes[:] = [note.replace(path, "PATH") for note in notes]

    assert any("closed" in note for note in check(scenario))


@with_loop
async def test_a_transport_that_has_ended_keeps_no_descriptor():
    first, peer = await connected()  # with which libuv opens one for itself
    first.transport.close()
    await first.until_event("lost")
    peer.close()
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    protocol, peer = await connected()
    transport = protocol.transport
    transport.close()
    await protocol.until_event("lost")
    await asyncio.sleep(0)
    assert transport.get_extra_info("socket").fileno() == -1
    peer.close()
    after = set(os.listdir("/proc/self/fd")) if before else set()
    assert len(after) <= len(before)


def test_a_descriptor_whose_transport_ends_can_be_watched():
    """Asyncio's add_reader() refuses that of an open transport only."""

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Ending(notes, tells=False))
        fd = protocol.transport.get_extra_info("socket").fileno()
        try:
            loop.add_reader(fd, print)
        except RuntimeError as error:
            notes(str(error).split(" by ")[0].replace(str(fd), "N"))
        protocol.transport.close()
        notes.call(loop.remove_reader, fd)
        await protocol.until_event("lost")
        peer.close()

    assert check(scenario)[0] == "File descriptor N is used"


@pytest.mark.parametrize("how", ["close", "abort", "close with output"])
def test_a_loop_that_is_closed_drops_the_call(how):
    def scenario(loop, notes):
        async def main():
            nonlocal protocol, peer
            protocol, peer = await accepted(loop, lambda: Ending(notes))
            if how == "close with output":
                protocol.transport.write(b"x" * 10_000_000)
            protocol.transport.get_extra_info("socket")
            loop.stop()
            getattr(protocol.transport, how.split()[0])()

        protocol = peer = None
        loop.create_task(main())
        loop.run_forever()
        loop.close()
        notes(protocol.events, protocol.transport.is_closing())
        if LOOP == "bolide" and type(loop).__module__.startswith("bolide"):
            assert protocol.transport.get_extra_info("socket").fileno() == -1
            peer.setblocking(True)
            peer.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(1_000_000):
                    pass
        else:
            protocol.transport._sock.close()
            protocol.transport._sock = None
        peer.close()

    assert check(scenario)[-1] == "['made'] True" or how == "close with output"


# --- stream sockets: output -------------------------------------------------------------------------------------------

MUCH = 8_000_000


@pytest.mark.parametrize("make", [Ending, BufferedEnding])
def test_output_after_close(make):
    """As long as there is output to send, more of it is taken."""

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: make(notes))
        transport = protocol.transport
        transport.write(b"x" * MUCH)
        transport.close()
        loop.call_soon(notes, "scheduled")
        for data in (b"a", bytearray(b"b"), memoryview(b"c")):
            notes.call(transport.write, data)
        notes.call(transport.write_eof)
        notes.call(transport.write, "text")
        await asyncio.sleep(0)
        transport.write(b"d")
        notes(transport.is_closing(), transport.get_write_buffer_size() > 0, transport.get_protocol() is protocol)
        received = await rest_of(loop, peer)
        notes(len(received), received[-6:])
        await protocol.until_event("lost")
        notes(protocol.events)
        peer.close()

    assert f"{MUCH + 4} b'xxabcd'" in check(scenario)


def test_a_close_before_the_end_of_the_output_that_is_aborted():
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Ending(notes))
        protocol.transport.write(b"x" * MUCH)
        protocol.transport.close()
        await asyncio.sleep(0)
        loop.call_soon(notes, "scheduled before")
        protocol.transport.abort()
        protocol.transport.abort()
        notes(protocol.transport.get_write_buffer_size())
        turns(loop, notes, 3)
        await protocol.until_event("lost")
        peer.close()

    assert "0" in check(scenario)


def test_a_peer_that_is_gone_before_the_end_of_the_output():
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Ending(notes))
        protocol.transport.write(b"x" * MUCH)
        protocol.transport.close()
        await asyncio.sleep(0)
        reset(peer)
        await protocol.until_event("lost")

    assert any("lost ConnectionResetError" in note or "lost BrokenPipeError" in note for note in check(scenario))


# --- EOF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Ending, BufferedEnding])
def test_an_eof_comes_again_to_who_reads_on(make):
    """Such as to a protocol that has taken over since."""

    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: make(notes))
        protocol.keep_open = True
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("eof")
        transport = protocol.transport
        transport.resume_reading()  # it is not paused
        transport.pause_reading()
        heir = make(notes)
        heir.transport = transport
        transport.set_protocol(heir)
        transport.write(b"still open")
        transport.resume_reading()
        await heir.until_event("lost")
        notes(protocol.events, heir.events, await rest_of(loop, peer))
        peer.close()

    assert check(scenario)[-1] == "['made', 'eof'] ['eof', 'lost'] b'still open'"


# --- TLS --------------------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """The other end, of which nothing is noted."""

    def connection_made(self, transport):
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()
        self.data = bytearray()

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class Turning(Ending):
    """With turns after what ends it."""

    def data_received(self, data):
        if data == b"fail":
            turns(asyncio.get_running_loop(), self.notes, until_lost=self)
            raise ValueError("data")
        super().data_received(data)

    def eof_received(self):
        turns(asyncio.get_running_loop(), self.notes, until_lost=self)
        return super().eof_received()


async def secured(loop, notes):
    """The server's protocol, the client's, and the server."""
    made = loop.create_future()

    class Served(Turning):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.set_result(self)

    server = await loop.create_server(lambda: Served(notes), "127.0.0.1", 0, ssl=authority().server())
    address = server.sockets[0].getsockname()
    _, client = await loop.create_connection(Client, *address, ssl=authority().client(), server_hostname="localhost")
    return await made, client, server


def forget_turn_3(notes):
    """After an orderly shutdown asyncio waits for one more turn, in which it closes the transport under TLS."""
    with contextlib.suppress(ValueError):
        notes.remove("turn 3")


@pytest.mark.parametrize("how", ["abort", "close", "close by the peer", "FIN of the peer", "failure"])
def test_the_end_with_tls(how):
    async def scenario(loop, notes):
        protocol, client, server = await secured(loop, notes)
        describe_socket(notes, protocol.transport)
        protocol.transport.write(b"last words")
        if how in ("abort", "close"):
            getattr(protocol.transport, how)()
            notes(protocol.transport.is_closing())
            if how == "abort":
                turns(loop, notes, until_lost=protocol)
        elif how == "close by the peer":
            client.transport.close()
        elif how == "failure":
            client.transport.write(b"fail")
        else:
            client.transport.get_extra_info("socket")._sock.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        await client.lost
        notes(bytes(client.data))
        server.close()
        await server.wait_closed()
        forget_turn_3(notes)

    assert "no socket" in check(scenario)


def test_writes_after_a_close_with_tls():
    async def scenario(loop, notes):
        protocol, client, server = await secured(loop, notes)
        protocol.transport.write(b"sent")
        protocol.transport.close()
        protocol.transport.write(b"dropped")
        await protocol.until_event("lost")
        await client.lost
        notes(bytes(client.data))
        server.close()
        forget_turn_3(notes)

    assert check(scenario)[-1] == "b'sent'"


def test_a_handshake_that_fails():
    """The one who waits for it hears of it first."""

    async def scenario(loop, notes):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = listening.getsockname()
            client = asyncio.ensure_future(
                loop.create_connection(
                    lambda: Ending(notes), *address, ssl=authority().client(), server_hostname="localhost"
                )
            )
            listening.setblocking(False)
            sock, _ = await loop.sock_accept(listening)
        await loop.sock_sendall(sock, b"no TLS, but enough bytes")
        client.add_done_callback(lambda _: turns(loop, notes, 3))
        await asyncio.wait([client])
        notes(type(client.exception()).__name__)
        sock.close()
        for _ in range(5):
            await asyncio.sleep(0)

    assert "SSLError" in check(scenario)


def test_an_upgrade_that_fails():
    async def scenario(loop, notes):
        protocol, peer = await accepted(loop, lambda: Ending(notes, tells=False))
        context = authority().server()
        upgrade = asyncio.ensure_future(loop.start_tls(protocol.transport, protocol, context, server_side=True))
        await asyncio.sleep(0)
        await loop.sock_sendall(peer, b"no TLS, but enough bytes")
        await asyncio.wait([upgrade])
        notes(type(upgrade.exception()).__name__, protocol.events)
        turns(loop, notes, 4)
        await protocol.until_event("lost")
        notes(protocol.events)
        peer.close()
        notes[:] = [note if note.startswith(("turn", "SSL", "[")) else note.split("(")[0] for note in notes]

    check(scenario)


# --- datagrams --------------------------------------------------------------------------------------------------------


class DatagramEnding(asyncio.DatagramProtocol):
    def __init__(self, notes):
        self.notes = notes
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc):
        self.notes("lost", exc)
        describe_socket(self.notes, self.transport)
        self.lost.set_result(None)

    def connection_made(self, transport):
        self.transport = transport


@pytest.mark.parametrize("connected_to_peer", [False, True])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end_of_datagrams(how, connected_to_peer):
    async def scenario(loop, notes):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: DatagramEnding(notes),
                ("127.0.0.1", 0),
                peer.getsockname() if connected_to_peer else None,
            )
            transport.sendto(b"x", None if connected_to_peer else peer.getsockname())
            loop.call_soon(notes, "scheduled before")
            getattr(transport, how)()
            turns(loop, notes, 3)
            notes(transport.is_closing(), transport.get_protocol() is protocol)
            await protocol.lost
            describe_socket(notes, transport)
            await asyncio.sleep(0)
            notes(transport.get_protocol(), transport.get_write_buffer_size())
            describe_socket(notes, transport)

    assert check(scenario)[1:3] == ["scheduled before", "lost None"]


# --- pipes and children -----------------------------------------------------------------------------------------------


class PipeEnding(asyncio.Protocol):
    def __init__(self, notes):
        self.notes = notes
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        pipe = self.transport.get_extra_info("pipe")
        self.notes("lost", exc, "closed" if pipe.closed else "open")
        self.lost.set_result(None)


@pytest.mark.parametrize("how", ["close", "abort", "the other end"])
@pytest.mark.parametrize("side", ["read", "write"])
def test_the_end_of_pipes(side, how):
    if (side, how) == ("read", "abort"):
        pytest.skip("there is no such method")

    async def scenario(loop, notes):
        reading, writing = (os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        connect = loop.connect_read_pipe if side == "read" else loop.connect_write_pipe
        ours, theirs = (reading, writing) if side == "read" else (writing, reading)
        transport, protocol = await connect(lambda: PipeEnding(notes), ours)
        loop.call_soon(notes, "scheduled before")
        if how == "the other end":
            theirs.close()
        else:
            getattr(transport, how)()
        turns(loop, notes, 1)
        await protocol.lost
        await asyncio.sleep(0)
        notes("closed" if ours.closed else "open", transport.is_closing())
        theirs.close()

    assert any(note.startswith("lost") for note in check(scenario))


def test_the_end_of_a_child():
    class Child(asyncio.SubprocessProtocol):
        def __init__(self, notes, loop):
            self.notes, self.loop = notes, loop
            self.exited = loop.create_future()
            self.lost = loop.create_future()

        def process_exited(self):
            self.exited.set_result(None)

        def connection_lost(self, exc):
            self.notes("lost", exc)
            self.lost.set_result(None)

    async def scenario(loop, notes):
        transport, protocol = await loop.subprocess_exec(
            lambda: Child(notes, loop),
            "cat",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None,
        )
        transport.get_pipe_transport(0).close()
        await asyncio.wait_for(protocol.exited, 20)
        await asyncio.wait_for(protocol.lost, 20)
        notes(transport.get_returncode(), transport.is_closing())
        transport.close()
        notes(transport.is_closing())

    assert check(scenario)[0] == "lost None"


# --- misuse -----------------------------------------------------------------------------------------------------------


@only_bolide
@with_loop
async def test_the_callbacks_called_by_hand():
    protocol, peer = await connected()
    transport = protocol.transport
    transport._call_connection_lost(None)
    assert protocol.events == ["made"] and not transport.is_closing()
    transport.close()
    transport._call_connection_lost(None)
    transport._call_connection_lost(None)
    await asyncio.sleep(0)
    assert protocol.events == ["made", "lost"]
    peer.close()


@only_bolide
def test_a_loop_that_is_closed_frees_what_was_to_be_called():
    async def main():
        protocol, peer = await connected()
        protocol.transport.write(b"sent")
        protocol.transport.close()
        assert protocol.events == ["made"]
        asyncio.get_running_loop().stop()
        return weakref.ref(protocol), weakref.ref(protocol.transport), peer

    loop = new_event_loop()
    task = loop.create_task(main())
    loop.run_forever()
    *references, peer = task.result()
    loop.close()
    del task, loop
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert receive_all(peer) == b"sent"
    peer.close()


@only_bolide
@with_loop
async def test_an_end_by_another_thread_wakes_the_loop():
    protocol, peer = await connected()
    await asyncio.to_thread(protocol.transport.abort)
    await protocol.until_event("lost")
    other, other_peer = await connected()
    timer = threading.Timer(0.05, other.transport.close)
    timer.start()
    await other.until_event("lost")
    timer.join()
    peer.close()
    other_peer.close()
