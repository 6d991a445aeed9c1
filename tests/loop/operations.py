"""One of each thing that a loop does, leaving nothing open: what references.py repeats.

OPERATIONS are coroutine functions, LOOPS are functions that make a loop of their own.
"""

import asyncio
import contextlib
import gc
import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

from support.certificates import authority

import bolide

SERVER = authority().server()
CLIENT = authority().client()
STRANGER = ssl.create_default_context()
FILE = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
FILE.write(os.urandom(300_000))
FILE.flush()
OPERATIONS = {}


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def nothing(*arguments):
    pass


def running():
    return asyncio.get_running_loop()


class Protocol(asyncio.Protocol):
    """Echoes, unless told otherwise; knows its end."""

    echo = True

    def __init__(self):
        self.lost = running().create_future()
        self.made = running().create_future()
        self.data = running().create_future()

    def connection_made(self, transport):
        self.transport = transport
        if not self.made.done():
            self.made.set_result(None)

    def data_received(self, data):
        if not self.data.done():
            self.data.set_result(None)
        if self.echo:
            self.transport.write(data)

    def connection_lost(self, exc):
        if not self.lost.done():
            self.lost.set_result(None)
        if not self.data.done():
            self.data.set_result(None)
        del self.transport

    def error_received(self, exc):
        pass

    def datagram_received(self, data, address):
        if self.echo:
            self.transport.sendto(data, address)
        if not self.data.done():
            self.data.set_result(None)


class Quiet(Protocol):
    echo = False


class Buffered(Quiet, asyncio.BufferedProtocol):
    def __init__(self):
        super().__init__()
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data_received(b"")


class Raising(Quiet):
    def __init__(self, where):
        super().__init__()
        self.where = where

    def _raise(self, name):
        if name == self.where:
            raise ValueError(name)

    def connection_made(self, transport):
        super().connection_made(transport)
        self._raise("connection_made")

    def data_received(self, data):
        super().data_received(data)
        self._raise("data_received")

    def eof_received(self):
        self._raise("eof_received")

    def pause_writing(self):
        self._raise("pause_writing")

    def resume_writing(self):
        self._raise("resume_writing")

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._raise("connection_lost")


class RaisingBuffered(Raising, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self._raise("get_buffer")
        return {"wrong": 1, "empty": b""}.get(self.where) or bytearray(10)

    def buffer_updated(self, nbytes):
        if not self.data.done():
            self.data.set_result(None)
        self._raise("buffer_updated")


async def end(*protocols):
    for protocol in protocols:
        if hasattr(protocol, "transport"):
            protocol.transport.close()
    for protocol in protocols:
        await asyncio.wait_for(protocol.lost, 10)


@contextlib.contextmanager
def sockets():
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


# --- scheduling ---


@operation
async def call_soon():
    running().call_soon(nothing, 1, 2, 3)
    running().call_soon(nothing, *range(9))
    running().call_soon(nothing).cancel()
    await asyncio.sleep(0)


@operation
async def call_later():
    running().call_later(0, nothing, object())
    running().call_later(1000, nothing, object()).cancel()
    running().call_at(running().time() + 1000, nothing, object(), 4, 5, 6, 7, 8).cancel()
    await asyncio.sleep(0.0001)


@operation
async def call_soon_threadsafe():
    done = running().create_future()
    thread = threading.Thread(target=running().call_soon_threadsafe, args=(done.set_result, None))
    thread.start()
    await done
    thread.join()


@operation
async def wrong_arguments():
    loop = running()
    for call in (
        lambda: loop.call_soon(),
        lambda: loop.call_soon(nothing, context=1),
        lambda: loop.call_soon(nothing, other=1),
        lambda: loop.call_later("x", nothing),
        lambda: loop.call_later(float("nan"), nothing),
        lambda: loop.call_later(1),
        lambda: loop.call_at(None, nothing),
        lambda: loop.add_reader("x", nothing),
        lambda: loop.add_reader(-1, nothing),
        lambda: loop.add_reader(1 << 70, nothing),
        lambda: loop.add_reader(FILE, nothing),
        lambda: loop.add_signal_handler(9, nothing),
        lambda: loop.add_signal_handler(999, nothing),
        lambda: loop.create_task(1),
        lambda: loop.create_task(1, 2, 3),
        lambda: loop.set_task_factory(1),
        lambda: loop.run_forever(),
        lambda: loop.close(),
        lambda: loop._make_socket_transport(1, 2),
        lambda: loop._start_tls(1, 2, 3),
        lambda: loop._listen(1, 2),
    ):
        try:
            call()
        except (TypeError, ValueError, RuntimeError, OSError, OverflowError, AttributeError):
            pass
        else:
            raise AssertionError(call)
    for call in (
        lambda: loop.sock_recv(1, 2),
        lambda: loop.sock_recv_into(FILE, b""),
        lambda: loop.sock_sendall(FILE, b"x"),
        lambda: loop.create_connection(1, 2, 3),
        lambda: loop.create_connection(nothing, sock=1),
        lambda: loop.create_server(nothing, 1),
        lambda: loop.create_datagram_endpoint(1),
        lambda: loop.start_tls(1, 2, 3),
        lambda: loop.sendfile(1, 2),
        lambda: loop.getaddrinfo(1, [], family="x"),
    ):
        try:
            await call()
        except (TypeError, ValueError, RuntimeError, OSError, AttributeError):
            pass
        else:
            raise AssertionError(call)


@operation
async def reprs():
    loop = running()
    handles = [loop.call_soon(nothing, 1), loop.call_later(100, nothing, 1)]
    repr(handles), repr(loop), hash(handles[1]), handles[1] < handles[1], handles[0]._args, handles[0]._callback
    handles[0].get_context()
    for handle in handles:
        handle.cancel()
        repr(handle)


@operation
async def debug_mode():
    loop = running()
    loop.set_debug(True)
    try:
        handle = loop.call_soon(nothing)
        repr(handle)
        handle.cancel()
        repr(handle)
        loop.call_later(0, nothing)
        await asyncio.sleep(0.0001)
        with contextlib.suppress(TypeError):
            loop.call_soon(1)
    finally:
        loop.set_debug(False)


@operation
async def contexts():
    import contextvars

    context = contextvars.copy_context()
    running().call_soon(nothing, context=context)
    running().call_later(0, nothing, context=context)
    await asyncio.sleep(0.0001)
    await running().create_task(asyncio.sleep(0), context=context)


@operation
async def raising_callback():
    running().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)


@operation
async def futures():
    future = running().create_future()
    running().call_soon(future.set_result, 1)
    await future
    future = running().create_future()
    future.add_done_callback(nothing)
    future.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await future
    future = running().create_future()
    running().call_soon(future.set_exception, ValueError())
    with contextlib.suppress(ValueError):
        await future


@operation
async def tasks():
    async def work():
        await asyncio.sleep(0)
        return 1

    await running().create_task(work())
    await running().create_task(work(), name="some")
    if sys.version_info >= (3, 12):
        running().set_task_factory(asyncio.eager_task_factory)
        try:
            await running().create_task(work())
            await running().create_task(work(), name="some")
        finally:
            running().set_task_factory(None)
    if sys.version_info >= (3, 13, 3):
        await running().create_task(work(), eager_start=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(work())
    task = running().create_task(asyncio.sleep(100))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@operation
async def timeouts():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.0001):
            await running().create_future()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(running().create_future(), 0.0001)


# --- descriptors, signals ---


@operation
async def watchers():
    loop = running()
    with sockets() as (left, right):
        ready = loop.create_future()
        loop.add_reader(left, ready.set_result, None)
        right.send(b"x")
        await ready
        loop.remove_reader(left)
        ready = loop.create_future()
        loop.add_writer(left.fileno(), lambda: ready.done() or ready.set_result(None))
        loop.add_writer(left.fileno(), lambda: ready.done() or ready.set_result(None))
        loop.add_reader(left, nothing)
        await ready
        loop.remove_writer(left)
        loop.remove_reader(left)


@operation
async def watcher_of_closed():
    with sockets() as (left, _):
        running().add_reader(left, nothing)
        left.close()
        await asyncio.sleep(0)
        running().remove_reader(left)


@operation
async def signals():
    loop = running()
    done = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, done.set_result, None)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(done, 10)
    loop.remove_signal_handler(signal.SIGUSR1)


# --- sock_* ---


@operation
async def sock_stream():
    loop = running()
    with sockets() as (left, right):
        waiting = loop.create_task(loop.sock_recv(left, 100))
        await asyncio.sleep(0)
        await loop.sock_sendall(right, b"x" * 10)
        await waiting
        buffer = bytearray(10)
        waiting = loop.create_task(loop.sock_recv_into(left, buffer))
        await asyncio.sleep(0)
        await loop.sock_sendall(right, bytearray(b"x" * 10))
        await waiting
        sending = loop.create_task(loop.sock_sendall(right, bytes(1_000_000)))
        count = 0
        while count < 1_000_000:
            count += len(await loop.sock_recv(left, 1 << 20))
        await sending


@operation
async def sock_cancelled():
    loop = running()
    with sockets() as (left, right):
        waiting = [
            loop.create_task(loop.sock_recv(left, 100)),
            loop.create_task(loop.sock_sendall(right, bytes(1 << 22))),
        ]
        await asyncio.sleep(0.0001)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@operation
async def sock_failing():
    loop = running()
    with sockets() as (left, right):
        right.close()
        with contextlib.suppress(OSError):
            await loop.sock_sendall(left, b"x")
        assert await loop.sock_recv(left, 1) == b""
        left.close()
        for call in (loop.sock_recv(left, 1), loop.sock_recv_into(left, bytearray(1)), loop.sock_sendall(left, b"x")):
            with contextlib.suppress(OSError):
                await call


@operation
async def sock_connect_accept():
    loop = running()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        listening.setblocking(False)
        client.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listening))
        await asyncio.sleep(0)
        await loop.sock_connect(client, listening.getsockname())
        accepted, _ = await accepting
        with accepted:
            await loop.sock_sendfile(accepted, FILE, 0, 1000)
            await loop.sock_recv(client, 2000)
            with contextlib.suppress(Exception):
                await loop.sock_sendfile(accepted, io.BytesIO(b"x" * 100))


@operation
async def sock_datagrams():
    loop = running()
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        waiting = loop.create_task(loop.sock_recvfrom(two, 100))
        await asyncio.sleep(0)
        await loop.sock_sendto(one, b"x", two.getsockname())
        await waiting
        await loop.sock_sendto(one, b"x", two.getsockname())
        await loop.sock_recvfrom_into(two, bytearray(10))


# --- TCP, Unix ---


@contextlib.asynccontextmanager
async def served(make=Protocol, **options):
    protocols = []

    def factory():
        protocols.append(make())
        return protocols[-1]

    server = await running().create_server(factory, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname(), protocols
    finally:
        server.close()
        for protocol in protocols:
            if hasattr(protocol, "transport"):
                protocol.transport.abort()
                await asyncio.wait_for(protocol.lost, 10)
        await server.wait_closed()


def tcp_kind(name, make, **options):
    async def run():
        server_options = {"ssl": SERVER} if options else {}
        async with served(**server_options) as (address, _):
            transport, protocol = await running().create_connection(make, *address, **options)
            transport.write(b"x" * 100)
            transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
            await protocol.data
            for key in ("socket", "sockname", "peername", "sslcontext", "ssl_object", "peercert", "cipher", "nothing"):
                transport.get_extra_info(key)
            repr(transport)
            transport.set_write_buffer_limits(10, 5)
            transport.get_write_buffer_limits()
            transport.pause_reading()
            transport.resume_reading()
            transport.set_protocol(protocol)
            await end(protocol)
            transport.write(b"after")
            transport.close()
            repr(transport)

    OPERATIONS[name] = run


TLS = {"ssl": CLIENT, "server_hostname": "localhost"}
tcp_kind("tcp", Quiet)
tcp_kind("tcp_buffered", Buffered)
tcp_kind("tls", Quiet, **TLS)
tcp_kind("tls_buffered", Buffered, **TLS)


def flow_kind(name, **options):
    async def run():
        async with served(Quiet, **({"ssl": SERVER} if options else {})) as (address, protocols):
            transport, protocol = await running().create_connection(Quiet, *address, **options)
            while not protocols:
                await asyncio.sleep(0)
            await protocols[0].made
            protocols[0].transport.pause_reading()
            for _ in range(40):
                transport.write(bytes(100_000))
            await asyncio.sleep(0)
            protocols[0].transport.resume_reading()
            await protocols[0].data
            transport.abort()
            await protocol.lost

    OPERATIONS[name] = run


flow_kind("back_pressure")
flow_kind("back_pressure_tls", **TLS)


@operation
async def write_eof():
    async with served() as (address, _):
        transport, protocol = await running().create_connection(Quiet, *address)
        transport.write(b"x")
        transport.write_eof()
        await protocol.lost


def streams_kind(name, **options):
    async def run():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, **({"ssl": SERVER} if options else {}))
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), **options)
            writer.write(b"line\n")
            await reader.readline()
            await reader.read()
            writer.close()
            await writer.wait_closed()

    OPERATIONS[name] = run


streams_kind("streams")
streams_kind("streams_tls", **TLS)


@operation
async def unix():
    with tempfile.TemporaryDirectory() as folder:
        server = await running().create_unix_server(Protocol, folder + "/s")
        transport, protocol = await running().create_unix_connection(Quiet, folder + "/s")
        transport.write(b"x")
        await protocol.data
        await end(protocol)
        server.close()
        await server.wait_closed()


@operation
async def connections_that_fail():
    loop = running()
    for call in (
        lambda: loop.create_connection(Quiet, "127.0.0.1", 1),
        lambda: loop.create_unix_connection(Quiet, "/nonexistent"),
        lambda: loop.create_connection(Quiet, "127.0.0.1", 1, ssl=CLIENT),
        lambda: loop.create_connection(lambda: 1 / 0, "127.0.0.1", 1),
    ):
        with contextlib.suppress(OSError, ZeroDivisionError):
            await call()
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.suppress(ZeroDivisionError):
        await loop.create_connection(lambda: 1 / 0, *listening.getsockname())


@operation
async def cancelled_connection():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = running().create_task(running().create_connection(Quiet, *listening.getsockname()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        options = {"ssl": CLIENT, "server_hostname": "localhost"}
        task = running().create_task(running().create_connection(Quiet, *listening.getsockname(), **options))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@operation
async def accepted_socket():
    left, right = socket.socketpair()
    _, one = await running().connect_accepted_socket(Protocol, left)
    _, two = await running().create_connection(Quiet, sock=right)
    two.transport.write(b"x")
    await two.data
    await end(two)
    await end(one)


@operation
async def server_close():
    server = await running().create_server(Protocol, "127.0.0.1", 0, start_serving=False)
    await server.start_serving()
    _, protocol = await running().create_connection(Quiet, *server.sockets[0].getsockname())
    await asyncio.sleep(0.001)
    server.close()
    if sys.version_info >= (3, 13):
        server.close_clients()
        server.abort_clients()
    else:
        protocol.transport.close()
    await server.wait_closed()
    await protocol.lost
    server = await running().create_server(Protocol, "127.0.0.1", 0)
    task = running().create_task(server.serve_forever())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


for where in ("connection_made", "data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost"):

    async def raising(where=where):
        left, right = socket.socketpair()
        with right:
            transport, protocol = await running().create_connection(lambda: Raising(where), sock=left)
            transport.set_write_buffer_limits(0)
            transport.write(bytes(1_000_000))
            right.setblocking(False)
            count = 0
            with contextlib.suppress(OSError):
                right.send(b"x")
            await asyncio.sleep(0)
            while count < 1_000_000 and not protocol.lost.done():
                with contextlib.suppress(BlockingIOError):
                    count += len(right.recv(1 << 20))
                await asyncio.sleep(0)
            with contextlib.suppress(OSError):
                right.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.0001)
            transport.close()
            await protocol.lost

    OPERATIONS[f"raising_{where}"] = raising

for where in ("get_buffer", "buffer_updated", "wrong", "empty"):

    async def raising(where=where):
        left, right = socket.socketpair()
        with right:
            transport, protocol = await running().create_connection(lambda: RaisingBuffered(where), sock=left)
            right.send(b"x" * 20)
            await asyncio.wait([protocol.lost, protocol.data], return_when=asyncio.FIRST_COMPLETED)
            transport.close()
            await protocol.lost

    OPERATIONS[f"raising_{where}_buffer"] = raising


@operation
async def factory_that_raises():
    async with served(lambda: 1 / 0) as (address, _):
        with socket.create_connection(address) as client:
            client.setblocking(False)
            with contextlib.suppress(OSError):
                await running().sock_recv(client, 1)


# --- TLS ---


@operation
async def tls_failed():
    async with served(ssl=SERVER) as (address, _):
        with contextlib.suppress(ssl.SSLError):
            await running().create_connection(Quiet, *address, ssl=STRANGER, server_hostname="localhost")


@operation
async def tls_nonsense():
    async with served(ssl=SERVER) as (address, _):
        with socket.create_connection(address) as client:
            client.setblocking(False)
            await running().sock_sendall(client, b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(OSError):
                while await running().sock_recv(client, 1000):
                    pass


@operation
async def tls_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.suppress(OSError):
        await running().create_connection(
            Quiet, *listening.getsockname(), ssl=CLIENT, server_hostname="localhost", ssl_handshake_timeout=0.001
        )
    async with served(ssl=SERVER, ssl_handshake_timeout=0.001) as (address, _):
        with socket.create_connection(address) as client:
            client.setblocking(False)
            with contextlib.suppress(OSError):
                await running().sock_recv(client, 1)


async def start_tls_both(client_context):
    left, right = socket.socketpair()
    loop = running()
    client, one = await loop.create_connection(Quiet, sock=left)
    server, two = await loop.create_connection(Protocol, sock=right)
    results = await asyncio.gather(
        loop.start_tls(client, one, client_context, server_hostname="localhost"),
        loop.start_tls(server, two, SERVER, server_side=True),
        return_exceptions=True,
    )
    if not isinstance(results[0], BaseException):
        one.transport = results[0]
        results[0].write(b"x" * 10)
        await one.data
    results = None
    client.close()
    server.close()
    await end(one)
    await end(two)


@operation
async def start_tls():
    await start_tls_both(CLIENT)


@operation
async def start_tls_failed():
    await start_tls_both(STRANGER)


@operation
async def start_tls_cancelled():
    left, right = socket.socketpair()
    with right:
        client, one = await running().create_connection(Quiet, sock=left)
        task = running().create_task(running().start_tls(client, one, CLIENT, server_hostname="localhost"))
        await asyncio.sleep(0.0001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while not client.is_closing():
            await asyncio.sleep(0)


@operation
async def tls_in_tls():
    async with served(Protocol, ssl=SERVER) as (address, _):
        transport, protocol = await running().create_connection(
            Quiet, *address, ssl=CLIENT, server_hostname="localhost"
        )
        with contextlib.suppress(OSError, ssl.SSLError):
            await running().start_tls(
                transport, protocol, CLIENT, server_hostname="localhost", ssl_handshake_timeout=0.01
            )
        transport.abort()
        await asyncio.sleep(0.001)


# --- sendfile ---


@operation
async def sendfile():
    async with served(Quiet) as (address, _):
        transport, protocol = await running().create_connection(Quiet, *address)
        await running().sendfile(transport, FILE, 0, 200_000)
        with contextlib.suppress(Exception):
            await running().sendfile(transport, FILE, 0, 100, fallback="wrong")
        await end(protocol)
        with contextlib.suppress(RuntimeError):
            await running().sendfile(transport, FILE)


@operation
async def sendfile_tls():
    async with served(Quiet, ssl=SERVER) as (address, _):
        transport, protocol = await running().create_connection(Quiet, *address, **TLS)
        await running().sendfile(transport, FILE, 0, 200_000)
        with contextlib.suppress(RuntimeError, NotImplementedError):
            await running().sendfile(transport, FILE, fallback=False)
        await end(protocol)


@operation
async def sendfile_cancelled():
    left, right = socket.socketpair()
    with right:
        transport, protocol = await running().create_connection(Quiet, sock=left)
        task = running().create_task(running().sendfile(transport, FILE))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        transport.abort()
        await protocol.lost


# --- datagrams, pipes, children ---


@operation
async def datagrams():
    loop = running()
    server, one = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
    client, two = await loop.create_datagram_endpoint(Quiet, remote_addr=server.get_extra_info("sockname"))
    client.sendto(b"x")
    await two.data
    repr(client)
    client.get_extra_info("socket")
    with contextlib.suppress(TypeError):
        client.sendto("text")
    with contextlib.suppress(ValueError):
        client.sendto(b"x", ("127.0.0.1", 9))
    client.abort()
    await end(one)
    await two.lost
    client, two = await loop.create_datagram_endpoint(Quiet, remote_addr=("127.0.0.1", 9))
    for _ in range(3):
        client.sendto(b"x")
        await asyncio.sleep(0)
    await end(two)


@operation
async def datagram_raising():
    class Bad(Quiet):
        def datagram_received(self, data, address):
            super().datagram_received(data, address)
            raise ValueError

    server, one = await running().create_datagram_endpoint(Bad, local_addr=("127.0.0.1", 0))
    server.sendto(b"x", server.get_extra_info("sockname"))
    await one.data
    await asyncio.sleep(0)
    await end(one)


@operation
async def pipes():
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as reader, open(writing, "wb", 0) as writer:
        _, one = await running().connect_read_pipe(Quiet, reader)
        _, two = await running().connect_write_pipe(Quiet, writer)
        two.transport.write(b"x")
        await one.data
        await end(two)
        await end(one)


@operation
async def child():
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await process.communicate(b"hello")
    process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
    process.kill()
    await process.wait()
    with contextlib.suppress(OSError):
        await asyncio.create_subprocess_exec("/nonexistent")


# --- threads ---


@operation
async def executor():
    await running().run_in_executor(None, nothing, 1)
    await asyncio.to_thread(nothing, 1)


@operation
async def resolver():
    await running().getaddrinfo("127.0.0.1", 80)
    await running().getaddrinfo("::1", "80")
    await running().getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    with contextlib.suppress(OSError):
        await running().getaddrinfo("127.0.0.1", 80, family=socket.AF_INET6)


@operation
async def async_generators():
    async def count():
        yield 1
        yield 2

    async for _ in count():
        break
    gc.collect()
    await asyncio.sleep(0)


# --- the loop itself (called outside of any) ---


def loop_open_close():
    loop = bolide.new_event_loop()
    loop.call_soon(nothing)
    loop.call_later(100, nothing, loop)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    repr(loop)


def loop_with_everything_open():
    loop = bolide.new_event_loop()
    left, right = socket.socketpair()

    async def main():
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        secure = await loop.create_server(Protocol, "127.0.0.1", 0, ssl=SERVER)
        _, one = await loop.create_connection(Quiet, *address)
        _, two = await loop.create_connection(Quiet, *secure.sockets[0].getsockname(), **TLS)
        one.transport.write(bytes(10_000_000))
        two.transport.write(bytes(1_000_000))
        await loop.create_datagram_endpoint(Quiet, local_addr=("127.0.0.1", 0))
        loop.add_reader(left, nothing, loop)
        loop.add_writer(right, nothing)
        left.setblocking(False)
        tasks.append(loop.create_task(loop.sock_recv(left, 100)))
        await asyncio.sleep(0)

    tasks = []
    loop.run_until_complete(main())
    loop.close()
    tasks.clear()
    left.close()
    right.close()


def loop_not_closed():
    loop = bolide.new_event_loop()
    loop.call_soon(nothing, loop)
    loop.call_later(100, nothing, loop)
    loop.run_until_complete(asyncio.sleep(0))


def loop_subclass():
    class Own(bolide.Loop):
        def time(self):
            return super().time()

        def call_at(self, when, callback, *args, context=None):
            return super().call_at(when, callback, *args, context=context)

        def call_soon(self, callback, *args, context=None):
            return super().call_soon(callback, *args, context=context)

    loop = Own()
    loop.own = loop
    loop.run_until_complete(asyncio.sleep(0.0001))
    loop.close()


def interrupted():
    loop = bolide.new_event_loop()

    def interrupt():
        raise KeyboardInterrupt

    loop.call_soon(interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_forever()
    loop.close()


def runner():
    bolide.run(asyncio.sleep(0))


LOOPS = {
    function.__name__: function
    for function in (loop_open_close, loop_with_everything_open, loop_not_closed, loop_subclass, interrupted, runner)
}


# --- the server ---


async def http_app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
        return
    if scope["type"] != "http":
        return
    if scope["path"] == "/raise":
        raise ValueError("raise")
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def ask(address, request, ending=b"ok"):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    with contextlib.suppress(asyncio.IncompleteReadError):
        await reader.readuntil(ending)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@operation
async def http_server():
    server = bolide.Server(bolide.Config(http_app, port=0, log_config=None, access_log=False, log_level="critical"))
    task = running().create_task(server.serve())
    while not server.started:
        if task.done():
            return await task
        await asyncio.sleep(0.0005)
    address = server.servers[0].sockets[0].getsockname()[:2]
    await ask(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await ask(address, b"POST /?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    await ask(address, b"GET /raise HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\n")
    await ask(address, b"nonsense\r\n\r\n", b"\r\n\r\n")
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x81\x83\0\0\0\0abc" + b"\x82\x83\0\0\0\0abc")
    await reader.readexactly(10)
    writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
    await reader.read()
    writer.close()
    server.should_exit = True
    await task
