"""Back-pressure both ways: a slow reader suspends send(), an app that reads slowly holds up the client."""

import contextlib
import json
import threading
import time

import pytest
from support import ServerProcess, control
from support.http_client import wait_until
from support.server import SANITIZED

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server():
    """A server of its own, so that its memory tells of these tests alone."""
    with ServerProcess("apps:app", "--no-access-log") as running:
        for _ in range(50):
            running.get("/text")
        yield running


@pytest.fixture
def apps(server):
    return control(server)


def assert_peak(server, before: int) -> None:
    """The server has stayed within 16 MiB of what it was, except under a sanitizer, which keeps what is freed."""
    assert SANITIZED or server.memory("VmHWM") - before < 16 * MIB


def wait_for_standstill(apps, name: str) -> int:
    """Wait until a count stops: the same over many round trips, each of which gives the app turns of the loop."""
    last, same = None, 0
    while same < 30:
        now = apps.get(name)
        same = same + 1 if now == last and now is not None else 0
        last = now
    return last


@pytest.mark.parametrize("length", ["", "&length=1"])
def test_slow_reader_suspends_send(server, apps, key, length):
    pieces, size = 1600, 65536
    before = server.memory()
    server.reset_peak_memory()
    with server.connect(receive_buffer=65536) as connection:
        connection.send_request("GET", f"/flood?key={key}&pieces={pieces}&size={size}{length}")
        sent = wait_for_standstill(apps, f"{key}.sent")
        assert sent < pieces / 4, "send() took the response though nobody reads it"
        assert_peak(server, before)
        response = connection.read_response()
        assert len(response.body) == pieces * size
        assert apps.wait(f"{key}.done") == pieces
        assert_peak(server, before)
        assert connection.get("/text").status == 200


def test_suspended_send_goes_on_as_the_client_reads(server, apps, key):
    """Not all or nothing: what the client takes makes room for as much, and no more."""
    pieces, size = 800, 65536
    with server.connect(receive_buffer=65536) as connection:
        connection.send_request("GET", f"/flood?key={key}&pieces={pieces}&size={size}&length=1")
        connection.read_head()
        taken = 0
        for _ in range(4):
            sent = wait_for_standstill(apps, f"{key}.sent")
            assert sent < pieces
            connection.read_exactly(100 * size)
            taken += 100
        assert taken <= wait_for_standstill(apps, f"{key}.sent") <= pieces
        assert len(connection.read_exactly((pieces - taken) * size)) == (pieces - taken) * size


def test_others_are_served_while_one_is_suspended(server, apps, key):
    slow = [server.connect(receive_buffer=4096) for _ in range(4)]
    for number, connection in enumerate(slow):
        connection.send_request("GET", f"/flood?key={key}.{number}&pieces=400&size=65536")
    for number in range(4):
        wait_for_standstill(apps, f"{key}.{number}.sent")
    assert server.get("/text").body == b"some text"
    for connection in slow:
        assert len(connection.read_response().body) == 400 * 65536
        connection.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_large_upload_to_an_app_that_reads_slowly(server, apps, key, chunked):
    """100 MB; the app takes one piece and stops. The client is held up, the memory stays, and nothing is lost."""
    size, piece = 100 * MIB, 256 * 1024
    sent = 0
    before = server.memory()
    server.reset_peak_memory()

    def upload():
        nonlocal sent
        while sent < size:
            data = b"x" * piece
            connection.send(b"%x\r\n%s\r\n" % (piece, data) if chunked else data)
            sent += piece
        if chunked:
            connection.send(b"0\r\n\r\n")

    with server.connect() as connection:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        connection.send(f"POST /sink?key={key} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n".encode())
        sender = threading.Thread(target=upload)
        sender.start()
        try:
            apps.wait(f"{key}.started")
            last, same = -1, 0
            while same < 30:
                same = same + 1 if sent == last else 0
                last = sent
                apps.get(key)
                time.sleep(0.002)
            assert sent < size / 2, "the client was not held up"
            assert_peak(server, before)
        finally:
            apps.set(f"{key}.release")
            answer = json.loads(connection.read_response().body)
            sender.join()
        assert answer["bytes"] == size
        assert_peak(server, before)
        assert connection.get("/text").status == 200


def test_client_stuck_in_an_upload_leaves(server, apps, key):
    """The paused connection's end is noticed at the latest when the app reads on; no memory stays behind."""
    with server.connect() as connection:
        connection.send(f"POST /sink?key={key} HTTP/1.1\r\nHost: test\r\nContent-Length: {MIB * 100}\r\n\r\n".encode())
        connection.socket.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            connection.send(b"x" * 100 * MIB)
        apps.wait(f"{key}.started")
    apps.set(f"{key}.release")
    server.log.wait_for(r"KeyError: 'body'")


@pytest.mark.rss
def test_memory_returns_after_many_large_answers(server):
    """Answers of 5 MB to twenty clients that read at leisure; afterwards the memory is near what it was."""
    before = server.memory()
    for _ in range(3):
        connections = [server.connect() for _ in range(20)]
        for connection in connections:
            connection.send_request("GET", f"/large?size={5 * MIB}")
        for connection in connections:
            assert len(connection.read_response().body) == 5 * MIB
            connection.close()
    wait_until(lambda: server.memory() - before < 40 * MIB, "the memory of the answers was given back")
