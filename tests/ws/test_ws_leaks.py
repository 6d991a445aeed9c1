"""Nothing is left behind by messages and connections: the median growth of five rounds stays under a few bytes each."""

from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest
from support import ServerProcess
from support.websocket_client import BINARY, CONTINUATION, PING, TEXT, Deflate, WebSocket, make_frame

pytestmark = [pytest.mark.rss, pytest.mark.slow, pytest.mark.timeout(180)]

OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover")]


@pytest.fixture
def quiet(serve) -> ServerProcess:
    """A server that logs nothing."""
    return serve("--log-level", "info", "--no-access-log")


def assert_flat(server: ServerProcess, operation: Callable[[], None], count: int, limit: int) -> None:
    """Run rounds of `count` operations after a warm-up; each may leave `limit` bytes behind."""
    operation()
    server.get("/collect-garbage")
    sizes = [server.memory()]
    for _ in range(5):
        operation()
        server.get("/collect-garbage")
        sizes.append(server.memory())
    growths = [after - before for before, after in pairwise(sizes)]
    assert median(growths) < limit * count, f"grew by {growths}"


@pytest.mark.parametrize("compressed", [False, True])
def test_messages(quiet, compressed):
    packed = Deflate().compress(b"some text " * 20)
    frames = [
        make_frame(TEXT, b"text"),
        make_frame(BINARY, bytes(300)),
        make_frame(TEXT, b"in ", fin=False),
        make_frame(PING, b"ping"),
        make_frame(CONTINUATION, b"parts"),
    ]
    answers = 4
    if compressed:
        frames.append(make_frame(TEXT, packed, rsv=4))
        answers += 1

    def operation() -> None:
        with WebSocket(quiet, "/ws-echo", OFFER if compressed else []) as ws:
            for _ in range(50):
                ws.send_raw(b"".join(frames) * 20)
                for _ in range(20 * answers):
                    ws.recv()
            ws.close()

    assert_flat(quiet, operation, 1000 * answers, 32)


def test_connections(quiet):
    """Opened, used, and closed, dropped, broken, refused, or left in the middle of a message."""

    def operation() -> None:
        for number in range(300):
            kind = number % 6
            if kind == 5:
                WebSocket(quiet, "/ws-return", expect=500).connection.close()
                continue
            with WebSocket(quiet, "/ws-echo", OFFER) as ws:
                ws.send_text("x")
                assert ws.recv_text() == "x"
                if kind == 0:
                    ws.close()
                elif kind == 1:
                    ws.send_raw(b"\xff\xff")
                    ws.expect_close(1002)
                elif kind == 2:
                    ws.send(TEXT, Deflate().compress(b"y" * 5000), fin=False, rsv=4)
                elif kind == 3:
                    ws.send_raw(make_frame(BINARY, bytes(1000))[:-1])
                    ws.connection.reset()

    assert_flat(quiet, operation, 300, 400)
