"""Sockets and buffers of a transport that others change under it, and code of the user's that its methods call."""

import asyncio
import contextlib
import gc
import os
import socket
from pathlib import Path

import pytest
from support.loops import new_event_loop, only_bolide, run_monkey, run_script, with_loop
from support.protocols import Recorder


def descriptors() -> int:
    """How many sockets this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of listdir() itself
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


async def connected(sock: socket.socket) -> Recorder:
    _, protocol = await asyncio.get_running_loop().create_connection(Recorder, sock=sock)
    return protocol


@with_loop
async def test_the_socket_of_the_user_is_the_one_that_get_extra_info_tells():
    left, right = socket.socketpair()
    number = left.fileno()
    protocol = await connected(left)
    sock = protocol.transport.get_extra_info("socket")
    assert sock.fileno() == number == left.fileno()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30_000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == left.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    protocol.transport.close()
    await protocol.until_event("lost")
    assert left.fileno() == -1
    assert right.recv(1) == b""
    right.close()


@only_bolide
@pytest.mark.parametrize("end", ["close", "abort", "peer", "own close", "os.close"])
def test_no_descriptor_of_a_users_socket_stays_open(loop, reports, end):
    async def one():
        left, right = socket.socketpair()
        protocol = await connected(left)
        if end == "peer":
            right.close()
        elif end == "own close":
            left.close()
            protocol.transport.close()
        elif end == "os.close":
            os.close(left.detach())
            protocol.transport.write(b"still open")
            await asyncio.sleep(0)
            assert right.recv(20) == b"still open"
            protocol.transport.close()
        else:
            getattr(protocol.transport, end)()
        await protocol.until_event("lost")
        right.close()

    loop.run_until_complete(one())
    gc.collect()
    before = descriptors()
    for _ in range(5):
        loop.run_until_complete(one())
    gc.collect()
    assert descriptors() == before


@only_bolide
@with_loop
async def test_what_the_loop_has_connected_itself_has_one_descriptor(tmp_path):
    loop = asyncio.get_running_loop()
    path = str(tmp_path / "socket")
    for family, address in [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, path)]:
        listening = socket.socket(family)
        listening.bind(address)
        listening.listen()
        listening.setblocking(False)
        before = descriptors()
        if family == socket.AF_UNIX:
            _, protocol = await loop.create_unix_connection(Recorder, path)
        else:
            _, protocol = await loop.create_connection(Recorder, *listening.getsockname())
        assert descriptors() == before + 1
        protocol.transport.close()
        await protocol.until_event("lost")
        assert descriptors() == before
        listening.close()


@only_bolide
def test_a_transport_that_cannot_be_made_leaves_the_socket_to_its_user(loop):
    class Server:
        def _attach(self, *args):
            raise ZeroDivisionError

    left, right = socket.socketpair()
    left.setblocking(False)
    before = descriptors()
    with pytest.raises(ZeroDivisionError):
        loop._make_socket_transport(left, asyncio.Protocol(), server=Server())
    with pytest.raises((AttributeError, TypeError)):
        loop._make_socket_transport(left, asyncio.Protocol(), extra=5)
    loop.run_until_complete(asyncio.sleep(0))
    assert descriptors() == before
    left.send(b"usable")
    assert right.recv(10) == b"usable"
    left.close()
    right.close()


@only_bolide
def test_a_transport_that_cannot_be_started_leaves_the_socket_to_its_user():
    class Loop(type(new_event_loop())):
        _start_transport = property(lambda self: 1 / 0)

    loop = Loop()
    left, right = socket.socketpair()
    left.setblocking(False)
    before = descriptors()
    waiter = loop.create_future()
    with pytest.raises(ZeroDivisionError):
        loop._make_socket_transport(left, asyncio.Protocol(), waiter)
    loop.run_until_complete(asyncio.sleep(0))
    assert descriptors() == before
    assert not waiter.done()
    left.send(b"usable")
    assert right.recv(10) == b"usable"
    left.close()
    right.close()
    loop.close()


@only_bolide
@pytest.mark.parametrize("kind", ["socket", "ssl", "datagram"])
def test_a_transport_made_as_memory_runs_out(kind):
    """Each allocation fails in turn: then there is no transport and no descriptor is lost, or it works."""
    pytest.importorskip("_testcapi")
    run_script(
        """
        import _testcapi, contextlib
        from support.certificates import authority
        kind = sys.argv[1]
        loop = new_event_loop()
        reports = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        context = authority().client()
        options = {"server_hostname": "localhost"} if kind == "ssl" else {}

        def descriptors():
            links = ("/proc/self/fd/" + name for name in os.listdir("/proc/self/fd"))
            return sum(os.readlink(link).startswith("socket:") for link in links if os.path.lexists(link))

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                if kind != "datagram":
                    transport.write(b"x")

        def attempt(start):
            left, right = socket.socketpair(type=socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
            left.setblocking(False)
            right.setblocking(False)
            before = descriptors()
            waiter, protocol = loop.create_future(), Protocol()
            arguments = (left, protocol, context, waiter) if kind == "ssl" else (left, protocol, waiter)
            make = getattr(loop, f"_make_{kind}_transport")
            if kind == "datagram":
                arguments = (left, protocol, None, waiter)
            transport = None
            if start >= 0:
                _testcapi.set_nomemory(start, start + 1)
            try:
                transport = make(*arguments, **options)
            except MemoryError:
                pass
            finally:
                _testcapi.remove_mem_hooks()
            for _ in range(3):
                loop.run_until_complete(asyncio.sleep(0))
            if transport is None:
                assert descriptors() <= before and not waiter.done(), start
                assert left.fileno() == -1 or left.send(b"usable") and right.recv(10) == b"usable", start
            elif waiter.done() and waiter.exception() is not None:
                assert isinstance(waiter.exception(), MemoryError), start
            elif kind == "datagram":
                assert waiter.done(), start
                transport.sendto(b"x")
                assert right.recv(10) == b"x"
            else:
                assert right.recv(1000), start  # a hello, that is, with TLS
            failed = transport is None or waiter.done() and waiter.exception() is not None
            if transport is not None:
                transport.abort()
            for _ in range(3):
                loop.run_until_complete(asyncio.sleep(0))
            left.close()
            right.close()
            return failed

        assert not attempt(-1)
        assert sum([attempt(start) for start in range(150)]) > 2
        loop.close()
        """,
        kind,
    )


@with_loop
async def test_a_datagram_socket_closed_under_its_transport():
    loop = asyncio.get_running_loop()
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=left)
    address = right.getsockname()
    left.close()
    others = [socket.socketpair() for _ in range(3)]  # may get the same descriptor
    transport.sendto(b"x", address)
    await asyncio.sleep(0)
    transport.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for one, other in others:
        one.send(b"mine")
        assert other.recv(10) == b"mine"
        one.close()
        other.close()
    right.close()


@only_bolide
@with_loop
async def test_a_datagram_transport_without_its_extra():
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    del transport._extra
    assert transport.get_extra_info("socket", 5) == 5
    transport.abort()


@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_the_extra_of_a_transport_replaced_while_a_name_is_looked_up_in_it(kind):
    """The attribute is asyncio's own; only the comparison of the name holds on to the dict."""
    run_script(
        f"""
        loop = new_event_loop()
        async def main():
            extra = {{i: i for i in range(3)}}
            if {kind!r} == "stream":
                sock, other = socket.socketpair()
                transport = loop._make_socket_transport(sock, asyncio.Protocol(), extra=extra)
            else:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                transport = loop._make_datagram_transport(sock, asyncio.DatagramProtocol(), extra=extra)
            class Name:
                def __hash__(self):
                    return 1
                def __eq__(self, other):
                    transport._extra = {{}}
                    self.garbage = [{{i: i for i in range(3)}} for _ in range(1000)]
                    return False
            assert transport.get_extra_info(Name(), "nothing") == "nothing"
            transport.abort()
            await asyncio.sleep(0)
        loop.run_until_complete(main())
        loop.close()
        """
    )


@with_loop
async def test_the_buffer_of_a_buffered_protocol_is_free_after_the_end():
    """While it is exported, a bytearray cannot be resized."""

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(100)
            self.lost = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint):
            return self.buffer

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    left, right = socket.socketpair()
    _, protocol = await asyncio.get_running_loop().create_connection(Buffered, sock=left)
    right.close()
    await protocol.lost
    protocol.buffer.clear()


@only_bolide
@pytest.mark.parametrize("call", ["abort()", "close()"])
@pytest.mark.parametrize("kind", ["socket", "datagram"])
def test_a_transport_is_not_found_before_it_is_made(kind, call):
    """By way of the garbage collector, of all that refers to its loop."""
    run_script(
        f"""
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        def find():
            return [found for found in gc.get_referrers(loop) if isinstance(found, asyncio.BaseTransport)]
        def play():
            for found in find():
                found.{call}
        class Protocol(asyncio.Protocol):
            @property
            def __class__(self):
                play()
                return asyncio.Protocol
        class Extra:
            def keys(self):
                play()
                return ["key"]
            def __getitem__(self, key):
                return "value"
        ours, peer = socket.socketpair(type=socket.SOCK_STREAM if {kind!r} == "socket" else socket.SOCK_DGRAM)
        ours.setblocking(False)
        transport = loop._make_{kind}_transport(ours, Protocol(), extra=Extra())
        assert find() == [transport]
        assert transport.get_extra_info("key") == "value"
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        """,
        options=("-W", "ignore"),
    )


@only_bolide
def test_a_timeout_whose_conversion_closes_the_connection():
    run_script(
        """
        from support.certificates import authority
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        converted = []
        class Odd:
            def __le__(self, other):
                return False
            def __float__(self):
                converted.append(True)
                for made in gc.get_objects():
                    if isinstance(made, asyncio.Transport):
                        made.abort()
                return 5.0
        class Closing(asyncio.Protocol):
            def connection_made(self, transport):
                transport.close()
        async def main():
            served = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=authority().server())
            port = served.sockets[0].getsockname()[1]
            for what in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
                converted.clear()
                options = {"ssl": authority().client(), "server_hostname": "localhost", what: Odd()}
                try:
                    async with asyncio.timeout(10):
                        await loop.create_connection(Closing, "127.0.0.1", port, **options)
                except OSError:
                    pass
                assert converted
            served.close()
        loop.run_until_complete(main())
        loop.close()
        """,
        options=("-W", "ignore"),
    )


@only_bolide
@with_loop
async def test_a_buffer_is_free_again_when_its_protocol_is_replaced():
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(100)

        def connection_made(self, transport):
            self.transport = transport

        def get_buffer(self, sizehint):
            self.transport.set_protocol(recorder)
            return self.buffer

    recorder = Recorder()
    left, right = socket.socketpair()
    transport, protocol = await asyncio.get_running_loop().create_connection(Buffered, sock=left)
    right.send(b"hello")
    await recorder.until_received(5)
    protocol.buffer.clear()
    transport.abort()
    await recorder.until_event("lost")
    right.close()


@only_bolide
def test_an_ssl_object_of_a_class_of_its_own():
    """What its write() does and returns is not to be relied on."""
    run_script(
        """
        import contextlib, ssl
        from support.certificates import authority
        signal.alarm(45)
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        class Odd(ssl.SSLObject):
            def write(self, data):
                plays[:] = plays[1:]
                return odd_write(super().write, data) if plays else super().write(data)
        def close_and_lie(write, data):
            transport.abort()
            return len(data)
        def write_more(write, data):
            transport.write(b"x" * 100_000)
            return write(data)
        def write_a_part(write, data):
            loop.call_soon(transport.abort)
            return write(data[:1])
        def fail(write, data):
            raise KeyError
        ODD = [
            lambda write, data: write(data),
            lambda write, data: len(data) * 1000,
            lambda write, data: -1,
            lambda write, data: None,
            close_and_lie,
            write_more,
            write_a_part,
            fail,
        ]
        server, client = authority().server(), authority().client()
        client.sslobject_class = Odd
        plays = []
        async def echo(reader, writer):
            with contextlib.suppress(OSError):
                while data := await reader.read(100_000):
                    writer.write(data)
            writer.close()
        async def main():
            global transport, odd_write
            listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
            address = listening.sockets[0].getsockname()
            for odd_write in ODD:
                reader, writer = await asyncio.open_connection(*address, ssl=client, server_hostname="localhost")
                transport = writer.transport
                plays[:] = [None] * 50
                with contextlib.suppress(OSError):
                    for size in (1, 10_000, 200_000):
                        writer.write(b"y" * size)
                        await asyncio.sleep(0.01)
                if odd_write in (ODD[0], write_more):
                    plays.clear()
                    assert (await reader.readexactly(210_001)).strip(b"xy") == b""
                transport.abort()
                plays.clear()
                await asyncio.sleep(0)
            listening.close()
        loop.run_until_complete(asyncio.wait_for(main(), 40))
        loop.close()
        """,
        options=("-W", "ignore"),
    )


CLOSED_BEHIND_ITS_BACK = """
class Ours(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.lost = transport, asyncio.get_running_loop().create_future()
        made.set_result(self)

    def connection_lost(self, exception):
        self.lost.set_result(exception)

async def main(side, when, instead):
    global made
    loop = asyncio.get_running_loop()
    made = loop.create_future()
    if side == "accepted":
        server = await loop.create_server(Ours, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
    else:
        listening = socket.create_server(("127.0.0.1", 0))
        await loop.create_connection(Ours, *listening.getsockname())
        peer = listening.accept()[0]
    ours = await made
    transport = ours.transport
    if when == "watched":
        await asyncio.sleep(0)  # a poll
        transport.write(bytes(20_000_000))  # waits for the peer
    number = transport.get_extra_info("socket").fileno()
    os.close(number)
    if instead != "nothing":
        other = os.open("/etc/passwd", os.O_RDONLY) if instead == "file" else os.pipe()[0]
        assert other == number
    for _ in range(3):
        await asyncio.sleep(0)
    transport.pause_reading()
    await asyncio.sleep(0)
    transport.resume_reading()
    await asyncio.sleep(0)
    transport.write(bytes(5_000_000))
    await asyncio.sleep(0)
    transport.abort()
    await ours.lost
    peer.close()

loop = new_event_loop()
loop.run_until_complete(asyncio.wait_for(main(*sys.argv[1:]), 30))
print("done")
os._exit(0)  # nobody else is to close that number
"""


@only_bolide
@pytest.mark.parametrize("instead", ["nothing", "file", "pipe"])
@pytest.mark.parametrize("when", ["new", "watched"])
@pytest.mark.parametrize("side", ["accepted", "connected"])
def test_a_descriptor_closed_behind_the_loops_back(side, when, instead):
    assert "done" in run_script(CLOSED_BEHIND_ITS_BACK, side, when, instead).stdout


@only_bolide
def test_a_transport_whose_descriptor_is_closed_before_it_is_read_is_lost():
    script = """
    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
        print(repr(await served))

    async def serve(reader, writer):
        os.close(writer.get_extra_info("socket").fileno())
        try:
            served.set_result(await reader.read())
        except OSError as error:
            served.set_result(error)

    loop = new_event_loop()
    served = loop.create_future()
    loop.run_until_complete(asyncio.wait_for(main(), 30))
    sys.stdout.flush()
    os._exit(0)
    """
    told = run_script(script).stdout
    assert "Error" in told or told == "b''\n"  # an end, to libuv 1.53


@pytest.mark.parametrize(
    "name", ["connection_made", "data_received", "eof_received", "pause_writing", "resume_writing"]
)
def test_the_exception_handler_is_told_of_transport_and_protocol(loop, reports, name):
    class Failing(Recorder):
        pass

    def fail(self, *arguments):
        getattr(Recorder, name)(self, *arguments)
        raise ValueError(name)

    setattr(Failing, name, fail)

    async def main():
        left, right = socket.socketpair()
        transport, protocol = await loop.create_connection(Failing, sock=left)
        right.sendall(b"data")
        if name == "eof_received":
            right.shutdown(socket.SHUT_WR)
        if name.endswith("writing"):
            transport.write(bytes(5_000_000))
            received = 0
            while received < 5_000_000:
                received += len(await asyncio.to_thread(right.recv, 1_000_000))
        while not reports:
            await asyncio.sleep(0)
        transport.abort()
        right.close()
        return transport, protocol

    transport, protocol = loop.run_until_complete(asyncio.wait_for(main(), 40))
    context = reports.pop(0)
    assert repr(context["exception"]) == f"ValueError('{name}')"
    if name != "connection_made":  # a callback of its own in asyncio
        assert context["transport"] is transport and context["protocol"] is protocol
    reports.clear()


@only_bolide
@pytest.mark.parametrize("seed", range(2))
def test_a_monkey_with_transports(seed, tmp_path):
    assert run_monkey(Path(__file__).with_name("monkey.py"), seed, tmp_path) > 0
