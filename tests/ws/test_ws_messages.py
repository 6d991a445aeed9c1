"""What an application receives and sends: the ASGI specification, and what uvicorn raises."""

import pytest
from support.websocket_client import BINARY, CLOSE, TEXT, Frame, WebSocket, handshake_fields


def refused(server, target, status):
    """The response to a handshake that is refused."""
    with WebSocket(server, target, expect=status) as ws:
        assert ws.response.header("connection") == "close"
        assert ws.connection.read_to_eof() == b""
        return ws.response


def test_accept_without_having_received(server):
    with WebSocket(server, "/ws-accept-first") as ws:
        assert ws.recv_text() == "{'type': 'websocket.connect'}"
        ws.send(BINARY, b"x")
        assert ws.recv_text() == "{'type': 'websocket.receive', 'bytes': b'x'}"


def test_receive_and_send_called_in_another_thread(server):
    with WebSocket(server, "/ws-called-elsewhere") as ws:
        for size in (0, 1, 3_000_000):
            ws.send(BINARY, b"%" * size)
            assert ws.recv().payload == b"%" * size


def test_close_before_accept(server, apps, key):
    response = refused(server, f"/ws-refuse?key={key}", 403)
    assert response.body == b""
    assert apps.wait(key) == {"type": "websocket.disconnect", "code": 1006}


@pytest.mark.parametrize("pieces", [1, 3])
def test_denial_response(server, apps, key, pieces):
    response = refused(server, f"/ws-deny?key={key}&pieces={pieces}", 451)
    assert response.header("x-why") == "law"
    assert response.body == b"".join(b"piece %d;" % i for i in range(pieces))
    assert response.header("content-length") == ("8" if pieces == 1 else None)
    assert apps.wait(key) == {"type": "websocket.disconnect", "code": 1006}


def test_denial_response_without_its_body(server):
    assert refused(server, "/ws-deny-start-only", 404).body == b""


def test_raising(server):
    assert refused(server, "/ws-raise", 500).body == b"Internal Server Error"
    with WebSocket(server, "/ws-raise?accepted") as ws:
        assert ws.recv_close() == (1011, "")
        ws.send(CLOSE, b"\x03\xf3")
        ws.expect_eof()
    server.log.wait_for("ValueError: deliberate")


def test_returning(server):
    refused(server, "/ws-return", 500)
    server.log.wait_for("ASGI callable returned without completing handshake.")
    with WebSocket(server, "/ws-return?accepted") as ws:
        assert ws.recv_close() == (1000, "")
        ws.send(CLOSE, b"\x03\xe8")
        ws.expect_eof()


def test_returning_a_value(server):
    with WebSocket(server, "/ws-return-value") as ws:
        assert ws.recv_close() == (1011, "")
    server.log.wait_for("ASGI callable should return None, but returned '123'.")


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("", 1000, ""),
        ("&code=1001", 1001, ""),
        ("&code=4999&reason=a%20b%C3%A9", 4999, "a bé"),
        ("&reason=x", 1000, "x"),
    ],
)
def test_closing(server, apps, key, arguments, code, reason):
    with WebSocket(server, f"/ws-close?key={key}{arguments}") as ws:
        assert ws.recv_close() == (code, reason)
        assert apps.wait(key) == {"type": "websocket.disconnect", "code": code, "reason": reason}
        # Until the client answers, the connection stays; its messages are dropped.
        ws.send(TEXT, b"dropped")
        ws.send(TEXT, b"unfinished", fin=False)
        assert ws.connection.is_quiet()
        ws.send(CLOSE, b"\x03\xe8")
        ws.expect_eof()


@pytest.mark.parametrize(
    ("case", "exception", "text"),
    [
        ("send-first", "RuntimeError", "Expected ASGI message 'websocket.accept', 'websocket.close' or "),
        ("http-first", "RuntimeError", "'websocket.http.response.start' but got 'http.response.start'."),
        ("body-first", "RuntimeError", "but got 'websocket.http.response.body'."),
        ("no-type", "KeyError", "type"),
        ("bad-status", "RuntimeError", "Invalid HTTP status code '700' in response."),
        ("two-starts", "RuntimeError", "Expected ASGI message 'websocket.http.response.body' but got 'websocket.http"),
        ("bad-header", "ValueError", "header"),
        ("bad-header-value", "ValueError", "header"),
        ("str-header", "TypeError", "header"),
        ("bad-subprotocol", "ValueError", "subprotocol"),
        ("bytes-subprotocol", "TypeError", "subprotocol"),
        ("two-accepts", "RuntimeError", "'websocket.send' or 'websocket.close', but got 'websocket.accept'."),
        ("start-after-accept", "RuntimeError", "but got 'websocket.http.response.start'."),
        ("text-bytes", "TypeError", "text must be str"),
        ("bytes-text", "TypeError", "bytes must be"),
        ("nothing", "TypeError", "text must be str"),
        ("nones", "TypeError", "text must be str"),
        ("surrogate", "UnicodeEncodeError", "surrogates not allowed"),
        ("number", "TypeError", "int"),
        ("bad-code", "ValueError", "invalid WebSocket close code 1006"),
        ("huge-code", "OverflowError", ""),
        ("str-code", "TypeError", ""),
        ("long-reason", "ValueError", "longer than 123"),
        ("bytes-reason", "TypeError", "reason must be str"),
        (
            "send-after-close",
            "RuntimeError",
            "Unexpected ASGI message 'websocket.send', after sending 'websocket.close'",
        ),
        ("close-twice", "RuntimeError", "Unexpected ASGI message 'websocket.close'"),
        ("accept-after-refusal", "RuntimeError", "Unexpected ASGI message 'websocket.accept'"),
    ],
)
def test_misuse(server, apps, key, case, exception, text):
    with server.connect() as connection:
        connection.send_request("GET", f"/ws-misuse?case={case}&key={key}", handshake_fields())
        head = connection.read_head()
        name, message, _ = apps.wait(key)
        assert name == exception
        assert text in message
        expected = {"two-starts": 404, "accept-after-refusal": 403}
        if head.status == 101:
            code = b"\x03\xe8" if case in ("send-after-close", "close-twice") else b"\x03\xf3"
            assert connection.read_exactly(4)[2:] == code
        else:
            assert head.status == expected.get(case, 500)


def test_other_buffers(server):
    with WebSocket(server, "/ws-buffers") as ws:
        found = [ws.recv() for _ in range(5)]
    assert found == [
        Frame(BINARY, b"array"),
        Frame(BINARY, b"view"),
        Frame(BINARY, b""),
        Frame(TEXT, b""),
        Frame(BINARY, b"first"),
    ]


def test_disconnect_before_accept(server, apps, key):
    with server.connect() as connection:
        connection.send_request("GET", f"/ws-receive-before-accept?key={key}", handshake_fields())
        apps.wait(f"{key}.connected")
    assert apps.wait(f"{key}.outcome") == {"type": "websocket.disconnect", "code": 1006}
    name, _, is_os_error = apps.wait(f"{key}.send")
    assert (name, is_os_error) == ("ClientDisconnected", True)


def test_send_after_the_peer_left(server, apps, key):
    """Messages that came before the close are delivered, then the disconnect, again if asked again."""
    with WebSocket(server, f"/ws-send-after-disconnect?key={key}") as ws:
        ws.send_text("one")
        ws.send_text("two")
        ws.close(1001, b"bye")
    exception, messages = apps.wait(key)
    assert (exception[0], exception[2]) == ("ClientDisconnected", True)
    left = {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}
    assert messages == [
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.receive", "text": "two"},
        left,
        left,
    ]


def test_two_tasks_receive(server):
    with WebSocket(server, "/ws-two-receivers") as ws:
        ws.send_text("1")
        assert ws.recv_text() == "a 1"
        ws.send_text("2")
        assert ws.recv_text() == "b 2"


def test_cancelled_receive_loses_nothing(server):
    with WebSocket(server, "/ws-cancelled-receive") as ws:
        assert [ws.recv_text() for _ in range(3)] == ["timeout"] * 3
        ws.send_text("kept")
        assert ws.recv_text() == "kept"


def test_log(server):
    with WebSocket(server, "/ws-echo?logged=1") as ws:
        port = ws.connection.socket.getsockname()[1]
        ws.close()
    server.log.wait_for(rf'127\.0\.0\.1:{port} - "WebSocket /ws-echo\?logged=1" \[accepted\]')
    with WebSocket(server, "/ws-refuse?key=logged", expect=403) as ws:
        port = ws.connection.socket.getsockname()[1]
    server.log.wait_for(rf'127\.0\.0\.1:{port} - "WebSocket /ws-refuse\?key=logged" 403')
