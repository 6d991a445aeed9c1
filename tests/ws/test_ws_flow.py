"""Back-pressure, pings, time limits and the end of the server."""

import os
import signal
import threading

import pytest
from support import control
from support.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Deflate,
    WebSocket,
    handshake_fields,
    make_frame,
)

# What a server may grow by when it has to hold little. A sanitizer keeps freed memory for a while.
BOUND = (512 if "asan" in os.environ.get("LD_PRELOAD", "") else 16) << 20


def test_slow_peer_suspends_send(server, apps, key):
    before = server.memory()
    with WebSocket(server, f"/ws-flood?key={key}&size=65536&count=1000", receive_buffer=4096) as ws:
        stuck = apps.wait(f"{key}.stuck")
        assert 0 < stuck < 500
        assert server.memory() - before < BOUND
        for _ in range(stuck):
            assert len(ws.recv().payload) == 65536


def test_peer_that_never_reads_and_leaves(server, apps, key):
    with WebSocket(server, f"/ws-flood?key={key}&size=65536&count=1000", receive_buffer=4096) as ws:
        apps.wait(f"{key}.stuck")
        ws.connection.reset()
    assert apps.wait(f"{key}.raised")[::2] == ["ClientDisconnected", True]


@pytest.mark.parametrize("compressed", [False, True])
def test_slow_application_stops_reading(server, apps, key, compressed):
    """Memory stays bounded, also when little on the wire is much in memory; nothing is lost."""
    offer = [("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover")] if compressed else []
    payload = bytes(100_000)
    frame = make_frame(BINARY, payload)
    if compressed:
        frame = make_frame(BINARY, Deflate(12).compress(payload), rsv=4)
    count = 50_000 if compressed else 500
    before = server.memory()
    with WebSocket(server, f"/ws-slow-reader?key={key}", offer) as ws:
        ws.connection.socket.settimeout(0.5)
        data = memoryview(frame * count)
        sent = 0
        try:
            while sent < len(data):
                sent += ws.connection.socket.send(data[sent:])
        except TimeoutError:
            pass
        assert sent < len(data)
        assert server.memory() - before < BOUND
        ws.connection.socket.settimeout(20)
        apps.set(f"{key}.go")
        if not compressed:
            ws.send_raw(bytes(data[sent:]))
            ws.close()
    if not compressed:
        assert apps.wait(f"{key}.done") == [count, count * len(payload)]


def test_queue_of_one(serve):
    """--ws-max-queue 1: each message waits for the one before to be taken."""
    server = serve("--ws-max-queue", "1")
    with WebSocket(server, "/ws-echo") as ws:
        ws.send_raw(b"".join(make_frame(TEXT, b"%d" % i) for i in range(500)) + make_frame(CLOSE))
        assert [ws.recv_text() for _ in range(500)] == [str(i) for i in range(500)]
        ws.expect_close(None)


def test_pings_of_a_peer_that_does_not_read(server, apps, key):
    """Their answers do not pile up; the last one is answered."""
    before = server.memory()
    with WebSocket(server, f"/ws-flood?key={key}&size=65536&count=300", receive_buffer=4096) as ws:
        apps.wait(f"{key}.stuck")
        for i in range(50_000):
            ws.send(PING, b"%d" % i)
        assert server.memory() - before < BOUND
        frame = ws.recv()
        while frame.opcode != PONG or frame.payload != b"49999":
            frame = ws.recv()


def test_pings(serve):
    server = serve("--ws-ping-interval", "0.05", "--ws-ping-timeout", "5")
    with WebSocket(server, "/ws-echo") as ws:
        payloads = []
        for _ in range(3):
            frame = ws.recv()
            assert (frame.opcode, len(frame.payload)) == (PING, 4)
            payloads.append(frame.payload)
            ws.send(PONG, frame.payload)
        assert len(set(payloads)) == 3
        ws.close()


@pytest.mark.parametrize("answer", [None, b"", b"else"])
def test_ping_without_its_answer(serve, answer):
    server = serve("--ws-ping-interval", "0.05", "--ws-ping-timeout", "0.2")
    with WebSocket(server, "/ws-echo") as ws:
        assert ws.recv().opcode == PING
        if answer is not None:
            ws.send(PONG, answer)
        assert ws.expect_close(1011) == "keepalive ping timeout"


def test_no_pings(serve):
    server = serve("--ws-ping-interval", "0", "--timeout-keep-alive", "1")
    with WebSocket(server, "/ws-echo") as ws:
        threading.Event().wait(0.5)
        ws.send_text("x")
        assert ws.recv_text() == "x"


def test_idle_longer_than_the_keep_alive_timeout(serve):
    """That limit is for HTTP."""
    server = serve("--timeout-keep-alive", "1")
    with WebSocket(server, "/ws-echo") as ws:
        with server.connect() as idle:
            assert idle.get("/text").status == 200
            assert idle.closed_by_peer()
        ws.send_text("x")
        assert ws.recv_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_shutdown(serve, number):
    server = serve()
    with WebSocket(server, "/ws-shutdown") as ws:
        assert ws.recv_text() == "ready"
        server.send_signal(number)
        assert ws.recv_close() == (1001, "")
        ws.send(CLOSE, b"\x03\xe9")
        ws.expect_eof()
    assert server.wait() == 0
    assert "ended with {'type': 'websocket.disconnect', 'code': 1001}" in server.stdout.text


def test_shutdown_with_a_peer_that_does_not_answer(serve):
    server = serve()
    with WebSocket(server, "/ws-shutdown") as ws:
        assert ws.recv_text() == "ready"
        assert server.stop() == 0
        ws.expect_close(1001)


def test_shutdown_within_the_handshake(serve):
    server = serve()
    with server.connect() as connection:
        connection.send_request("GET", "/ws-never-accepts", handshake_fields())
        server.stdout.wait_for("waits")
        server.send_signal(signal.SIGINT)
        assert connection.read_response().status == 503
        assert server.wait() == 0
    assert "ended with {'type': 'websocket.disconnect', 'code': 1006}" in server.stdout.text


def test_handshake_once_the_server_stops(serve):
    """Behind a response that was under way: 503, and no word of a limit in the log."""
    server = serve()
    with server.connect() as connection, server.connect() as upload, WebSocket(server, "/ws-shutdown") as ws:
        assert ws.recv_text() == "ready"
        upload.send(b"POST /release?key=k HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        connection.send_request("GET", "/drip?key=k&pieces=2")
        connection.send_request("GET", "/ws-echo", handshake_fields())
        connection.read_head()
        assert connection.read_chunk() == b"piece 0"
        control(server).wait("k.reading")
        server.send_signal(signal.SIGINT)
        ws.expect_close(1001)
        upload.send(b"67890")
        assert connection.read_chunk() == b"piece 1"
        assert (connection.read_chunk(), connection.read_line()) == (b"", b"")
        assert connection.read_response().status == 503
    assert server.wait() == 0
    assert "Exceeded" not in server.log.text


@pytest.mark.rss
def test_memory_of_idle_connections(server):
    """Compression that was negotiated and never used costs nothing to speak of."""
    offer = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]
    opened = [WebSocket(server, "/ws-echo", offer) for _ in range(100)]
    before = server.memory()
    opened += [WebSocket(server, "/ws-echo", offer) for _ in range(400)]
    each = (server.memory() - before) / 400
    for ws in opened:
        ws.connection.close()
    assert each < 5 * 1024


@pytest.fixture
def crowd(server):
    """Open so many WebSockets: crowd(300, "/ws-echo")."""
    opened: list[WebSocket] = []

    def open_them(count: int, target: str) -> list[WebSocket]:
        opened.extend(WebSocket(server, target) for _ in range(count))
        return opened

    yield open_them
    for ws in opened:
        ws.connection.close()


def test_many_that_wait(crowd):
    """Whoever has waited in receive() for longer than hundreds of others is woken as they are."""
    opened = crowd(300, "/ws-echo")
    for turn in range(2):
        for number, ws in enumerate(opened):
            ws.send_text(f"{turn} {number}")
        for number, ws in enumerate(opened):
            assert ws.recv_text() == f"{turn} {number}"


def test_many_that_wait_are_cancelled(server, crowd):
    opened = crowd(300, "/ws-cancelled")
    for ws in opened:
        ws.send_text("once, so that it waits")
        assert ws.recv_text() == "received"
    assert server.get("/cancel-waiting").status == 200
    for ws in opened:
        assert ws.recv_text() == "cancelled by name"
    for ws in opened[::-1]:
        ws.send_text("again")
        assert ws.recv_text() == "received"


def test_parts_of_messages_side_by_side(crowd):
    """Frames and messages of many connections that come in parts do not mix."""
    opened = crowd(40, "/ws-echo")
    texts = [f"{number} " * (5 + number * 20) for number in range(len(opened))]
    parts = []
    for number, text in enumerate(texts):
        data = text.encode()
        frames = make_frame(TEXT, data[: number * 3], fin=False) + make_frame(CONTINUATION, data[number * 3 :])
        parts.append([frames[: number + 1], frames[number + 1 : -3], frames[-3:]])
    for index in range(3):
        for ws, part in zip(opened, parts, strict=True):
            ws.send_raw(part[index])
    for ws, text in zip(opened, texts, strict=True):
        assert ws.recv_text() == text
