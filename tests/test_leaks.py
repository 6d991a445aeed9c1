"""Nothing is left behind: after a warm-up, a great many operations leave the memory of the process where it was.

They run in five rounds, and the median growth of a round counts: a leak shows in each, while the allocator's or the
collector's way to a steady state shows in one or two. The limit is 32 bytes an operation: less than any object.
"""

import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median

import pytest
from support import KIND, REPOSITORY, Connection, ServerProcess, uvicorn_differs

ROUNDS = 5
BYTES_PER_OPERATION = 32
PAGE = resource.getpagesize()
REQUEST = b"GET /text?a=b HTTP/1.1\r\nHost: test\r\nAccept: */*\r\nX-Some-Header: a value\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n" + b"b" * 100

pytestmark = pytest.mark.rss


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    """A server on a Unix socket (no port is used up by a connection), quiet whatever happens."""
    path = str(tmp_path_factory.mktemp("leaks") / "server.sock")
    running = ServerProcess("apps:app", "--uds", path, "--log-level", "critical", "--no-access-log")
    try:
        running.wait_accepting(path)
        yield running
        assert running.process.poll() is None
    finally:
        running.kill()


def assert_flat(server: ServerProcess, operation: Callable[[int], None], count: int, warm_up: int) -> None:
    """Run so many operations after a warm-up, and compare what the server has grown by with the limit."""
    operation(warm_up)
    server.get("/collect-garbage")
    sizes = [server.memory()]
    for _ in range(ROUNDS):
        operation(count // ROUNDS)
        server.get("/collect-garbage")
        sizes.append(server.memory())
    growths = [after - before for before, after in pairwise(sizes)]
    assert median(growths) < BYTES_PER_OPERATION * count / ROUNDS, f"grew by {growths}"


def pipelined(server: ServerProcess, request: bytes, batch: int = 100) -> Callable[[int], None]:
    """An operation that sends requests over one connection, a batch at a time."""
    with server.connect() as connection:
        connection.send(request)
        connection.read_response()
        connection.send(request * 2)
        first = connection.read_response()
        second = connection.read_response()
        assert first.status == second.status == 200
    with server.connect() as connection:
        connection.send(request + request.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nConnection: close\r\n"))
        both = connection.read_to_eof()
    size = both.find(b"HTTP/1.1 ", 1)
    payload = request * batch

    def operation(count: int) -> None:
        with server.connect() as connection:
            for _ in range(count // batch):
                connection.send(payload)
                received = connection.read_exactly(size * batch)
            assert received.count(b"HTTP/1.1 200 OK\r\n") == batch

    return operation


@pytest.mark.parametrize("request_bytes", [REQUEST, POST], ids=["get", "post"])
def test_requests(server, request_bytes):
    count = 100_000 if request_bytes is REQUEST else 30_000
    assert_flat(server, pipelined(server, request_bytes), count, 10_000)


def test_streamed_responses(server):
    operation = pipelined(server, b"GET /response?body=abc&pieces=10 HTTP/1.1\r\nHost: test\r\n\r\n", batch=20)
    assert_flat(server, operation, 10_000, 2_000)


keeps_reset_connections = uvicorn_differs("keeps what was reset until its keep-alive timer fires", always=False)


def connections(server: ServerProcess) -> Callable[[int], None]:
    """An operation that opens connections, fifty at a time, asks once on each, and closes them in several ways."""

    def operation(count: int) -> None:
        for _ in range(count // 50):
            opened = []
            for number in range(50):
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(server.address)
                if number % 10:
                    connection.send(REQUEST)
                opened.append(connection)
            for number, connection in enumerate(opened):
                if number % 10 > 1:
                    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
                connection.close()

    return operation


@keeps_reset_connections
def test_connections(server):
    """100,000: most get an answer, some leave before theirs, some say nothing."""
    assert_flat(server, connections(server), 100_000, 10_000)


@uvicorn_differs("takes about 8 KiB")
def test_idle_connections_cost_little():
    """A connection that has been served and waits for more: its buffers belong to the loop."""
    count = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2 * count, hard)), hard))
    with ServerProcess("apps:app", "--no-access-log", "--timeout-keep-alive", "600") as tcp:
        for _ in range(200):
            tcp.get("/text")
        before = tcp.memory()
        opened = [tcp.connect() for _ in range(count)]
        for connection in opened:
            assert connection.get("/text").status == 200
        assert (tcp.memory() - before) / count < 2 * 1024
        for connection in opened:
            connection.close()


@keeps_reset_connections
def test_connections_that_are_reset():
    """Over TCP, each ended by a reset, some in the middle of a request."""

    def operation(count: int) -> None:
        for number in range(count):
            connection = Connection(tcp.address)
            connection.send(REQUEST if number % 4 else POST[:-10])
            if number % 2:
                assert connection.socket.recv(4096).startswith(b"HTTP/1.1 200")
            connection.reset()

    with ServerProcess("apps:app", "--no-access-log") as tcp:
        assert_flat(tcp, operation, 20_000, 4_000)


FAILURES = {
    "raises before the response": b"GET /raise-before HTTP/1.1\r\nHost: test\r\n\r\n",
    "raises midway": b"GET /raise-midway HTTP/1.1\r\nHost: test\r\n\r\n",
    "malformed": b"nonsense\r\n\r\n",
    "unread body": b"POST /unread HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    "bad chunks": b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures(server, name):
    def operation(count: int) -> None:
        for _ in range(count):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(server.address)
                connection.send(FAILURES[name])
                while connection.recv(4096):
                    pass

    assert_flat(server, operation, 5_000, 1_000)


LOOP_SCRIPT = """
import asyncio, importlib, resource, socket, sys

module, name, what = sys.argv[1:]
new_event_loop = getattr(importlib.import_module(module), name)
loop = new_event_loop()


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def callback(*arguments):
    pass


async def call_soon(count):
    for _ in range(count // 1000):
        for number in range(1000):
            loop.call_soon(callback, number, "argument")
        await asyncio.sleep(0)


async def call_later_and_cancel(count):
    for _ in range(count // 1000):
        for handle in [loop.call_later(60, callback, number) for number in range(1000)]:
            handle.cancel()
        await asyncio.sleep(0)


async def call_later_that_fires(count):
    for _ in range(count // 1000):
        done = loop.create_future()
        for number in range(999):
            loop.call_later(0, callback, number)
        loop.call_later(0.0001, done.set_result, None)
        await done


async def call_soon_threadsafe(count):
    for _ in range(count // 1000):
        for number in range(1000):
            loop.call_soon_threadsafe(callback, number)
        await asyncio.sleep(0)


async def tasks(count):
    async def work(future):
        return await future
    for _ in range(count // 100):
        futures = [loop.create_future() for _ in range(100)]
        running = [loop.create_task(work(future)) for future in futures]
        for future in futures:
            loop.call_soon(future.set_result, 1)
        await asyncio.gather(*running)


async def raising_callbacks(count):
    def fail():
        raise ValueError
    loop.set_exception_handler(lambda loop, context: None)
    for _ in range(count // 100):
        for _ in range(100):
            loop.call_soon(fail)
        await asyncio.sleep(0)


async def connections(count):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for number in range(count):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"line\\n")
        if number % 4:
            await reader.readline()
        if number % 3:
            writer.close()
        else:
            writer.transport.abort()
        await asyncio.sleep(0)
    server.close()


async def sockets_by_hand(count):
    for _ in range(count):
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        receiving = loop.create_task(loop.sock_recv(left, 100))
        await loop.sock_sendall(right, b"x" * 100)
        await receiving
        left.close()
        right.close()


async def watchers(count):
    left, right = socket.socketpair()
    for _ in range(count // 100):
        for number in range(100):
            loop.add_reader(left, callback, number)
            loop.add_writer(left, callback, number)
            loop.remove_reader(left)
            loop.remove_writer(left)
        await asyncio.sleep(0)
    left.close()
    right.close()


async def executor(count):
    for _ in range(count // 100):
        await asyncio.gather(*(loop.run_in_executor(None, callback, number) for number in range(100)))


async def failed_connections(count):
    for _ in range(count):
        try:
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
        except OSError:
            pass


async def loops(count):
    def run():
        for _ in range(count):
            other = new_event_loop()
            other.call_later(100, callback, other)
            other.call_soon(callback, other)
            other.run_until_complete(asyncio.sleep(0))
            other.close()
    await loop.run_in_executor(None, run)


operation, count, rounds = globals()[what], {counts}[what], {rounds}
loop.run_until_complete(operation(count // 10))
sizes = [resident()]
for _ in range(rounds):
    loop.run_until_complete(operation(count // rounds))
    sizes.append(resident())
print(*(after - before for before, after in zip(sizes, sizes[1:])))
loop.close()
"""
COUNTS = {
    "call_soon": 1_000_000,
    "call_later_and_cancel": 300_000,
    "call_later_that_fires": 300_000,
    "call_soon_threadsafe": 300_000,
    "tasks": 100_000,
    "raising_callbacks": 100_000,
    "connections": 5_000,
    "failed_connections": 5_000,
    "sockets_by_hand": 20_000,
    "watchers": 100_000,
    "executor": 20_000,
    "loops": 2_000,
}


@pytest.mark.parametrize("what", COUNTS)
def test_loop(what):
    module = "bolide" if KIND == "bolide" else "asyncio"
    script = LOOP_SCRIPT.replace("{counts}", repr(COUNTS)).replace("{rounds}", str(ROUNDS))
    command = [sys.executable, "-c", script, module, "new_event_loop", what]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=REPOSITORY / "tests")
    assert told.returncode == 0, told.stderr
    growths = [int(growth) for growth in told.stdout.split()]
    assert median(growths) < max(BYTES_PER_OPERATION * COUNTS[what] / ROUNDS, 2 * PAGE), f"grew by {growths}"
