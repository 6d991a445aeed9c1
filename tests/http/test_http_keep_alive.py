"""When a connection stays open and when it closes (RFC 9112, section 9.3)."""

import socket
from contextlib import ExitStack

import pytest
from support import Connection, control, uvicorn_differs


def test_http_11_keeps_alive_by_default(connection):
    for _ in range(3):
        response = connection.get("/text")
        assert (response.status, response.version, response.body) == (200, "1.1", b"some text")
        assert response.header("connection") in (None, "keep-alive")
    assert connection.is_quiet()


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "x-hop,close"])
def test_http_11_close_on_request(connection, value):
    response = connection.request("GET", "/text", [("Connection", value)])
    assert response.body == b"some text"
    assert response.header("connection") == "close"
    assert connection.closed_by_peer()


def test_http_11_explicit_keep_alive(connection):
    connection.request("GET", "/text", [("Connection", "keep-alive")])
    assert connection.get("/text").status == 200


def test_http_10_closes_by_default(connection):
    response = connection.request("GET", "/text", version="1.0")
    assert response.body == b"some text"
    assert connection.closed_by_peer()


@uvicorn_differs("never keeps a connection of HTTP/1.0")
def test_http_10_keeps_alive_on_request(connection):
    for _ in range(3):
        response = connection.request("GET", "/text", [("Connection", "keep-alive")], version="1.0")
        assert response.body == b"some text"
        assert response.header("connection").lower() == "keep-alive", "an HTTP/1.0 client must be told"
    assert connection.request("GET", "/text", version="1.0").status == 200
    assert connection.closed_by_peer()


@uvicorn_differs("sends chunks to HTTP/1.0")
def test_http_10_body_without_length_ends_with_the_connection(connection):
    connection.send_request("GET", "/response?body=abc&pieces=3", [("Connection", "keep-alive")], version="1.0")
    response = connection.read_response()
    assert response.header("transfer-encoding") is None, "HTTP/1.0 knows no chunks"
    assert response.header("connection") in (None, "close")
    assert response.body == b"abcabcabc"
    assert connection.closed_by_peer()


def test_app_closes(connection):
    response = connection.get("/response?length=2&body=ok&header=Connection:close")
    assert response.values("connection") == ["close"]
    assert connection.closed_by_peer()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_any_method_on_one_connection(connection, method):
    for _ in range(2):
        response = connection.request(method, "/scope")
        assert response.status == 200
        if method != "HEAD":
            assert f"'method': '{method}'" in response.text


def test_many_requests_on_one_connection(connection):
    for number in range(500):
        assert connection.get(f"/length/{number}").body == f"/length/{number}? 0".encode()


def test_no_bytes_then_close(server):
    for _ in range(20):
        with server.connect():
            pass
    assert server.get("/text").status == 200


def test_half_close_after_the_request(server):
    """A client that has said all and shut down its sending side (as `nc -N` does) still gets the answer."""
    with server.connect() as connection:
        connection.send_request("GET", "/text")
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.read_response().body == b"some text"
        assert connection.closed_by_peer()


@uvicorn_differs("drops the connection")
def test_half_close_while_the_app_works(server, apps, key):
    with server.connect() as connection:
        connection.send_request("GET", f"/gate?key={key}")
        connection.socket.shutdown(socket.SHUT_WR)
        apps.wait(f"{key}.started")
        server.get("/text")
        apps.set(f"{key}.release")
        assert connection.read_response().text == f"released {key}"
        assert connection.closed_by_peer()


def test_empty_lines_before_a_request(connection):
    """RFC 9112, 2.2: a server should ignore at least one empty line before the request line."""
    connection.get("/text")
    connection.send(b"\r\n")
    assert connection.get("/text").status == 200


@pytest.fixture
def impatient(servers):
    with servers.lend("apps:app", "--timeout-keep-alive", "1") as running:
        yield running


@pytest.fixture
def closing(servers):
    """A server that keeps no connection."""
    with servers.lend("apps:app", "--timeout-keep-alive", "0") as running:
        yield running


def test_idle_connection_is_closed_after_the_timeout(impatient):
    with impatient.connect() as connection:
        assert connection.get("/text").status == 200
        assert connection.closed_by_peer()


def test_idle_timeout_spares_a_request_in_progress(impatient, key):
    """The request began before the idle connection's last one, so a timeout for both would cut it too."""
    with impatient.connect() as busy, impatient.connect() as idle:
        busy.get("/text")
        busy.send_request("GET", f"/gate?key={key}")
        control(impatient).wait(f"{key}.started")
        idle.get("/text")
        assert idle.closed_by_peer()
        control(impatient).set(f"{key}.release")
        assert busy.read_response().text == f"released {key}"


def test_two_connections_do_not_mix(server):
    with Connection(server.address) as first, Connection(server.address) as second:
        first.send(b"GET /length/first HTTP/1.1\r\nHo")
        second.send(b"GET /length/second HTTP/1.1\r\nHost: x\r\n\r\n")
        assert second.read_response().text == "/length/second? 0"
        first.send(b"st: x\r\n\r\n")
        assert first.read_response().text == "/length/first? 0"


@uvicorn_differs("does not say so")
def test_timeout_of_zero_says_and_does_close(closing):
    for _ in range(3):
        with closing.connect() as connection:
            response = connection.get("/text")
            assert response.body == b"some text"
            assert response.values("connection") == ["close"]
            assert connection.closed_by_peer()


def test_timeout_of_zero_leaves_a_connection_time_for_its_request(closing):
    with closing.connect() as connection:
        connection.send(b"GET /text HTTP/1.1\r\n")
        assert closing.get("/text").status == 200
        assert connection.is_quiet()
        connection.send(b"Host: x\r\n\r\n")
        assert connection.read_response().body == b"some text"


def test_many_connections_side_by_side(server):
    """Requests that come in parts, on many connections at once and one after another on each, do not mix."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(200)]
        for turn in range(3):
            bodies = [f"{turn} {number} ".encode() * (1 + number) for number in range(len(connections))]
            parts = []
            for body in bodies:
                request = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                parts.append([request[:20], request[20:45], request[45:-2], request[-2:]])
            for index in range(4):
                for connection, part in zip(connections, parts, strict=True):
                    connection.send(part[index])
            for connection, body in zip(connections, bodies, strict=True):
                assert connection.read_response().body == body
