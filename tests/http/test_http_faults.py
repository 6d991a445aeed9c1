"""Faults around the server: clients that vanish at any point, descriptors and memory that run out, stopped peers.

Whatever happens, others are served, and nothing of it stays behind.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import KIND, ServerProcess, control
from support.http_client import TIMEOUT
from support.server import SANITIZED

pytestmark = pytest.mark.skipif(KIND != "bolide", reason="about bolide")
POST = b"POST /echo HTTP/1.1\r\nHost: test\r\n"
REQUESTS = {
    "get": b"GET /text HTTP/1.1\r\nHost: test\r\n\r\n",
    "length": POST + b"Content-Length: 20\r\n\r\n" + b"b" * 20,
    "chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nX-A: b\r\n\r\n",
    "expect": POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "pipeline": b"GET /text HTTP/1.1\r\nHost: test\r\n\r\n" * 3,
    "large": b"GET /large?size=300000 HTTP/1.1\r\nHost: test\r\n\r\n",
    "malformed": b"GET / HTTP/1.1\r\nHost: test\r\nX : y\r\n\r\n",
}


def sockets_of(server: ServerProcess) -> int:
    """How many sockets the server has open."""
    found = 0
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        try:
            found += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue
    return found


def wait_for_sockets(server: ServerProcess, count: int) -> None:
    """Wait until the server has no more sockets open than that."""
    end = time.monotonic() + TIMEOUT
    while (found := sockets_of(server)) > count:
        assert time.monotonic() < end, f"{found - count} connections stay"
        assert server.get("/text").status == 200


@pytest.fixture
def faulty(servers):
    """A server of this module's own, whose connections are counted."""
    with servers.lend("apps:app", "--no-access-log", "--timeout-keep-alive", "30") as server:
        server.get("/text")
        yield server
    assert "HTTP connection failed" not in server.log.text


@pytest.mark.parametrize("way", ["close", "reset", "half"])
@pytest.mark.parametrize("name", REQUESTS)
def test_client_leaves_after_any_byte(faulty, name, way):
    before = sockets_of(faulty)
    raw = REQUESTS[name]
    for size in range(len(raw) + 1):
        connection = faulty.connect()
        connection.send(raw[:size])
        if way == "reset":
            connection.reset()
        elif way == "close":
            connection.close()
        else:
            connection.socket.shutdown(socket.SHUT_WR)
            connection.read_to_eof()
            connection.close()
    wait_for_sockets(faulty, before)


@pytest.mark.parametrize("name", REQUESTS)
def test_one_byte_at_a_time(faulty, name):
    with faulty.connect() as whole, faulty.connect() as bytewise:
        bytewise.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole.send(REQUESTS[name])
        for byte in REQUESTS[name]:
            bytewise.send(bytes([byte]))
        for _ in range(3 if name == "pipeline" else 1):
            first, second = whole.read_response(), bytewise.read_response()
            assert (first.status, first.body) == (second.status, second.body)


def test_reset_while_the_response_is_sent(faulty):
    before = sockets_of(faulty)
    for size in (1000, 100_000, 5_000_000):
        for read in (0, 1, 1000, 100_000):
            connection = faulty.connect(receive_buffer=4096)
            connection.send_request("GET", f"/large?size={size}")
            connection.read_exactly(min(read, size))
            connection.reset()
    wait_for_sockets(faulty, before)


def test_descriptors_run_out():
    """Those that are connected go on; the others are served when there are descriptors again."""
    limit = 48
    with ServerProcess("apps:app", "--no-access-log", "--timeout-keep-alive", "60") as server:
        with server.connect() as first:
            assert first.get("/text").status == 200
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
            crowd = [socket.create_connection(server.address) for _ in range(limit * 2)]
            for _ in range(20):
                assert first.get("/text").status == 200
            for sock in crowd:
                sock.sendall(REQUESTS["get"])
            served = len(select.select(crowd, [], [], TIMEOUT)[0])
            assert 0 < served <= limit
            for sock in crowd[: limit + limit // 2]:
                sock.close()
            waiting = crowd[limit + limit // 2 :]
            for sock in waiting:
                sock.settimeout(TIMEOUT)
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
                sock.close()
            assert first.get("/text").status == 200
        assert server.process.poll() is None


@contextlib.contextmanager
def stopped_client(server: ServerProcess, target: str) -> Iterator[None]:
    """A client that has got the first byte of a response and was stopped then, by SIGSTOP; killed at the end."""
    program = f"""
        import socket, time
        sock = socket.create_connection({server.address!r})
        sock.sendall(b"GET {target} HTTP/1.1\\r\\nHost: test\\r\\n\\r\\n")
        print(len(sock.recv(1)), flush=True)
        time.sleep(600)
    """
    client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    try:
        assert client.stdout.read(1) == b"1"
        client.send_signal(signal.SIGSTOP)
        yield
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


def test_stopped_client_with_much_queued(faulty, key):
    """A client that is stopped before 1 GiB for it costs its own response, and nobody else anything."""
    before = sockets_of(faulty)
    with stopped_client(faulty, f"/flood?key={key}&pieces=16384&size=65536"):
        sizes = [faulty.memory()]
        for _ in range(200):
            assert faulty.get("/text").status == 200
        sizes.append(faulty.memory())
        assert SANITIZED or sizes[1] - sizes[0] < 30_000_000
        assert control(faulty).get(f"{key}.sent") < 4000  # what fits into the kernel's buffers and ours
    wait_for_sockets(faulty, before)


def test_stopped_client_is_cut_off(key):
    """Within the write timeout, on the whole of its gigabyte; the application is told, and others are served."""
    with ServerProcess("apps:app", "--no-access-log", "--timeout-write", "1") as server:
        before = sockets_of(server)
        with stopped_client(server, f"/disconnect-while-suspended?key={key}"):
            assert server.get("/text").status == 200
            assert control(server).wait(f"{key}.ended")["outcome"] in ("OSError", "send did not raise")
            wait_for_sockets(server, before)


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's own allocations would fail")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio of 3.11 allocates to forget the running loop")
@pytest.mark.parametrize("name", [*(name for name in REQUESTS if name != "large"), "descriptor"])
def test_memory_runs_out(name):
    """Every allocation of a request fails in turn: a response, or a cut, and the next request is answered."""
    pytest.importorskip("_testcapi")
    program = Path(__file__).with_name("no_memory.py")
    done = subprocess.run(
        [
            sys.executable,
            str(program),
            (REQUESTS.get(name) or b"GET /%s HTTP/1.0\r\nHost: test\r\n\r\n" % name.encode()).hex(),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 2,
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-3000:])
    assert "served to the end" in done.stdout
