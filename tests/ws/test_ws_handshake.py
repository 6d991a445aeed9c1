"""The opening handshake: RFC 6455, section 4.2, and the scope."""

import ast

import pytest
from support.websocket_client import KEY, PING, PONG, TEXT, WebSocket, handshake_fields, make_frame

DEFLATE = ("Sec-WebSocket-Extensions", "permessage-deflate")


def ask(peer, **changes):
    """Send a handshake and return the head of the answer."""
    peer.send_request("GET", "/ws-echo", handshake_fields(**changes))
    return peer.read_head()


def test_the_example_of_the_rfc(connection):
    response = ask(connection)
    assert response.status == 101
    assert response.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert response.header("sec-websocket-extensions") is None
    assert response.header("sec-websocket-protocol") is None
    assert response.header("date") is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": "WebSocket"},
        {"upgrade": "foo, websocket"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "upgrade"},
        {"Origin": "http://elsewhere.example"},
    ],
    ids=str,
)
def test_other_forms_of_the_fields(connection, changes):
    assert ask(connection, **changes).status == 101


@pytest.mark.parametrize("version", ["8", "0", "12", "14", "13, 8", "", "abc", None])
def test_other_versions_are_told_ours(connection, version):
    connection.send_request("GET", "/ws-echo", handshake_fields(sec_websocket_version=version))
    response = connection.read_response()
    assert response.status == 426
    assert response.header("sec-websocket-version") == "13"
    assert response.header("upgrade") == "websocket"


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "short",
        KEY[:-1],
        KEY + "=",
        KEY[:-2] + "AA",
        "dGhlIHNhbXBsZSBub25jZR==",
        "*" * 22 + "==",
        f"{KEY}, {KEY}",
    ],
)
def test_bad_keys(connection, key):
    connection.send_request("GET", "/ws-echo", handshake_fields(sec_websocket_key=key))
    assert connection.read_response().status == 400


def test_two_keys(connection):
    connection.send_request("GET", "/ws-echo", [*handshake_fields(), ("Sec-WebSocket-Key", KEY)])
    assert connection.read_response().status == 400


@pytest.mark.parametrize("header", [("Content-Length", "5"), ("Transfer-Encoding", "chunked")])
def test_no_body(connection, header):
    connection.send_request("GET", "/ws-echo", [*handshake_fields(), header])
    assert connection.read_response().status == 400


def test_other_methods_and_versions_are_plain_http(server):
    """RFC 9110, section 7.8: an upgrade may be ignored, and in HTTP/1.0 must be."""
    with server.connect() as connection:
        assert connection.request("POST", "/text", handshake_fields(), body=b"").status == 200
    with server.connect() as connection:
        assert connection.request("GET", "/text", handshake_fields(), version="1.0").status == 200
    with server.connect() as connection:
        assert connection.request("GET", "/text", handshake_fields(connection="close")).status == 200


def test_ws_none_ignores_the_upgrade(serve):
    with serve("--ws", "none").connect() as connection:
        assert connection.request("GET", "/text", handshake_fields()).status == 200


def test_scope(server):
    fields = [
        ("Cookie", "a=b; c=d"),
        ("Origin", "http://x"),
        ("Sec-WebSocket-Protocol", "one, two"),
        ("Sec-WebSocket-Protocol", "three"),
    ]
    with WebSocket(server, "/ws-scope/p%20q/%C3%A9?x=1&y=%20", fields) as ws:
        scope = ast.literal_eval(ws.recv_text())
        client = ws.connection.socket.getsockname()
        assert scope.pop("headers") == [
            (b"host", b"test"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-key", ws.key.encode()),
            (b"sec-websocket-version", b"13"),
            *((name.lower().encode(), value.encode()) for name, value in fields),
        ]
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/ws-scope/p q/é",
        "raw_path": b"/ws-scope/p%20q/%C3%A9",
        "query_string": b"x=1&y=%20",
        "root_path": "",
        "client": client,
        "server": server.address,
        "subprotocols": ["one", "two", "three"],
        "state": {"opened": "at startup"},
        "extensions": {"websocket.http.response": {}},
    }


def test_proxy_headers(server):
    fields = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]
    with WebSocket(server, "/ws-scope", fields) as ws:
        scope = ast.literal_eval(ws.recv_text())
    assert (scope["scheme"], scope["client"]) == ("wss", ("203.0.113.7", 0))


@pytest.mark.parametrize("subprotocol", ["one", "Two", None])
def test_accept(server, subprotocol):
    target = "/ws-accept" + (f"?subprotocol={subprotocol}" if subprotocol else "")
    with WebSocket(server, target, [("Sec-WebSocket-Protocol", "one, Two")]) as ws:
        assert ws.response.header("sec-websocket-protocol") == subprotocol
        assert ws.response.header("x-one") == "1"
        assert ws.response.header("x-two") == "2"
        assert ws.response.header("set-cookie") == "a=b"
        ws.close()


@pytest.mark.parametrize("value", ["a b", "one,,two;", "é", "x" * 300])
def test_bad_subprotocols(connection, value):
    connection.send(b"GET /ws-echo HTTP/1.1\r\nHost: x\r\n")
    lines = [f"{n}: {v}\r\n" for n, v in [*handshake_fields(), ("Sec-WebSocket-Protocol", value)]]
    connection.send("".join([*lines, "\r\n"]).encode())
    assert connection.read_response().status == 400


@pytest.mark.parametrize(
    "value", [";", "permessage-deflate; =1", 'permessage-deflate; a="', "permessage-deflate x", "(", "a b"]
)
def test_bad_extensions(connection, value):
    connection.send_request("GET", "/ws-echo", [*handshake_fields(), ("Sec-WebSocket-Extensions", value)])
    assert connection.read_response().status == 400


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", {"server_max_window_bits=12"}),
        ("foo, permessage-deflate", {"server_max_window_bits=12"}),
        ("permessage-deflate; client_max_window_bits", {"server_max_window_bits=12", "client_max_window_bits=12"}),
        ("permessage-deflate; client_max_window_bits=9", {"server_max_window_bits=12", "client_max_window_bits=9"}),
        ('permessage-deflate; client_max_window_bits="10"', {"server_max_window_bits=12", "client_max_window_bits=10"}),
        ("permessage-deflate; server_max_window_bits=9", {"server_max_window_bits=9"}),
        ("permessage-deflate; server_max_window_bits=15", {"server_max_window_bits=12"}),
        ("permessage-deflate; server_no_context_takeover", {"server_max_window_bits=12", "server_no_context_takeover"}),
        ("permessage-deflate; client_no_context_takeover", {"server_max_window_bits=12", "client_no_context_takeover"}),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", {"server_max_window_bits=12"}),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits=09", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; unknown", None),
        ("x-webkit-deflate-frame", None),
    ],
)
def test_negotiation_of_compression(server, offer, answer):
    with WebSocket(server, "/ws-echo", [("Sec-WebSocket-Extensions", offer)]) as ws:
        found = ws.response.header("sec-websocket-extensions")
        if answer is None:
            assert found is None
        else:
            name, *parameters = found.split("; ")
            assert (name, set(parameters)) == ("permessage-deflate", answer)
        ws.send_text("works")
        assert ws.recv_text() == "works"


def test_compression_can_be_switched_off(serve):
    server = serve("--ws-per-message-deflate", "false")
    with WebSocket(server, "/ws-echo", [DEFLATE]) as ws:
        assert ws.response.header("sec-websocket-extensions") is None
        ws.send(TEXT, b"x", rsv=4)
        ws.expect_close(1002)


def test_frames_behind_the_handshake(server):
    """A client that does not wait for the answer."""
    extra = make_frame(TEXT, b"early") + make_frame(PING, b"p")
    with WebSocket(server, "/ws-echo", extra=extra) as ws:
        frames = {frame.opcode: frame.payload for frame in (ws.recv(), ws.recv())}
        assert frames == {TEXT: b"early", PONG: b"p"}
        ws.close()


def test_frames_wait_for_the_accept(server, apps, key):
    with server.connect() as connection:
        connection.send_request("GET", f"/ws-wait?key={key}", handshake_fields())
        connection.send(make_frame(TEXT, b"one") + make_frame(TEXT, b"two"))
        apps.wait(f"{key}.connected")
        assert connection.is_quiet()
        apps.set(f"{key}.accept")
        assert connection.read_head().status == 101
        assert apps.wait(f"{key}.outcome") == {"type": "websocket.receive", "text": "one"}


def test_handshake_byte_by_byte(server):
    fields = handshake_fields()
    request = "GET /ws-echo HTTP/1.1\r\nHost: x\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields) + "\r\n"
    with server.connect() as connection:
        for byte in request.encode() + make_frame(TEXT, b"slow"):
            connection.send(bytes([byte]))
        assert connection.read_head().status == 101
        assert connection.read_exactly(6) == b"\x81\x04slow"


def test_broken_frame_right_behind_the_handshake(server):
    """The message before it is answered all the same."""
    fields = "".join(f"{n}: {v}\r\n" for n, v in handshake_fields())
    request = f"GET /ws-echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode()
    with server.connect() as connection:
        connection.send(request + make_frame(TEXT, b"hi") + make_frame(TEXT, b"bare", mask=None))
        assert connection.read_head().status == 101
        assert connection.read_exactly(4) == b"\x81\x02hi"
        assert connection.read_exactly(4)[2:] == (1002).to_bytes(2)


def test_behind_ordinary_requests(server):
    """An upgrade on a connection that has served requests, and pipelined behind one."""
    with server.connect() as connection:
        assert connection.get("/text").status == 200
        fields = "".join(f"{n}: {v}\r\n" for n, v in handshake_fields())
        connection.send(
            b"GET /text HTTP/1.1\r\nHost: x\r\n\r\n"
            + f"GET /ws-echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode()
            + make_frame(TEXT, b"hi")
        )
        assert connection.read_response().body == b"some text"
        assert connection.read_head().status == 101
        assert connection.read_exactly(4) == b"\x81\x02hi"


def test_limit_of_concurrency(serve):
    server = serve("--limit-concurrency", "2")
    with WebSocket(server, "/ws-echo") as ws:
        with server.connect() as connection:
            connection.send_request("GET", "/ws-echo", handshake_fields())
            assert connection.read_response().status == 503
        ws.close()


def test_scopes_are_independent(server):
    """Whatever an application does to its scope, the next one is as it should be."""
    seen = []
    for _ in range(3):
        with WebSocket(server, "/ws-spoil-scope") as ws:
            seen.append(ast.literal_eval(ws.recv_text()))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["path"] == "/ws-spoil-scope"
    assert (seen[0]["asgi"]["version"], seen[0]["extensions"]) == ("3.0", {"websocket.http.response": {}})
    assert (seen[0]["subprotocols"], seen[0]["state"]) == ([], {"opened": "at startup"})


def test_keys_that_an_application_adds(server):
    """They are behind the others and in order, however many the scopes before had room for."""
    for count in (0, 3, 14, 15, 40, 1, 14, 0, 20):
        with WebSocket(server, f"/ws-add-keys?count={count}") as ws:
            last, *added = ast.literal_eval(ws.recv_text())
            assert last == ("state", {"opened": "at startup"})
            assert added == [(f"key {number}", number) for number in range(count)]
