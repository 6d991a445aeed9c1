"""Apps that answer without reading the request's body: the rest of it is never taken for the next request."""

import threading

import pytest
from support import Truncated

TRAP = b"GET /length/smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
APPS = ["/unread", "/unread-chunked", "/read-once"]
NEXT = b"GET /length/next HTTP/1.1\r\nHost: test\r\n\r\n"


def read_next(connection):
    """What is answered to the request behind the unread body: it, or None when the server closed instead."""
    try:
        return connection.read_response().text
    except (Truncated, ConnectionError):
        return None


@pytest.mark.parametrize("path", APPS)
@pytest.mark.parametrize("size", [1, 100, 5_000, 70_000])
def test_small_body_then_another_request(connection, path, size):
    body = (TRAP * (size // len(TRAP) + 1))[:size]
    connection.send_request("POST", path, body=body)
    assert connection.read_response().text in ("did not look", "read one piece")
    try:
        connection.send(NEXT)
    except ConnectionError:
        return
    assert read_next(connection) in ("/length/next? 0", None)


@pytest.mark.parametrize("path", APPS)
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_body_in_the_same_packet_as_the_next_request(connection, path, coding):
    if coding == "length":
        framed = b"Content-Length: %d\r\n\r\n%s" % (len(TRAP), TRAP)
    else:
        framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(TRAP), TRAP)
    connection.send(b"POST %s HTTP/1.1\r\nHost: test\r\n%s%s" % (path.encode(), framed, NEXT))
    assert connection.read_response().text in ("did not look", "read one piece")
    assert read_next(connection) in ("/length/next? 0", None)


@pytest.mark.parametrize("path", APPS)
def test_rest_of_the_body_comes_after_the_answer(connection, path):
    half = len(TRAP)
    connection.send(b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), 2 * half, TRAP))
    assert connection.read_response().text in ("did not look", "read one piece")
    try:
        connection.send(TRAP + NEXT)
    except ConnectionError:
        return
    assert read_next(connection) in ("/length/next? 0", None)


@pytest.mark.parametrize("path", APPS)
def test_large_body(server, path):
    """20 MB that nobody wants: the client is not left hanging, and gets the answer if it reads while it sends."""
    size = 20_000_000
    failed = []

    def upload():
        try:
            connection.send(TRAP * (size // len(TRAP)) + b"x" * (size % len(TRAP)))
        except ConnectionError as exc:
            failed.append(exc)

    with server.connect() as connection:
        connection.send(b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % (path.encode(), size))
        sender = threading.Thread(target=upload)
        sender.start()
        response = connection.read_response()
        assert response.text in ("did not look", "read one piece")
        sender.join(20)
        assert not sender.is_alive(), "the server neither reads nor closes"
        if not failed:
            try:
                connection.send(NEXT)
            except ConnectionError:
                return
            assert read_next(connection) in ("/length/next? 0", None)
    assert server.get("/text").status == 200


def test_body_that_never_comes(connection):
    """The client announces a body, reads the answer, and sends nothing: the answer must be complete."""
    connection.send(b"POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n")
    assert connection.read_response().body == b"did not look"
