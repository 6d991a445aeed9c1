"""Expect: 100-continue (RFC 9110, 10.1.1)."""

from support import uvicorn_differs

HEAD = b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"


def test_continue_comes_when_the_app_reads(connection):
    connection.send(HEAD % (b"/echo", 5))
    interim = connection.read_head()
    assert (interim.status, interim.reason, interim.version) == (100, "Continue", "1.1")
    assert connection.is_quiet()
    connection.send(b"hello")
    response = connection.read_response()
    assert (response.status, response.body, response.interim) == (200, b"hello", [])


def test_continue_waits_for_the_app(connection, apps, key):
    """An app that has not asked for the body yet has not agreed to receive it."""
    connection.send(HEAD % (b"/gate?key=" + key.encode(), 5))
    apps.wait(f"{key}.started")
    assert connection.is_quiet()
    apps.set(f"{key}.release")
    response = connection.read_response()
    assert (response.text, response.interim) == (f"released {key}", [])


def test_no_continue_when_the_app_refuses(connection):
    connection.send(HEAD % (b"/response?status=413&length=0", 5))
    response = connection.read_response()
    assert (response.status, response.interim) == (413, [])


def test_refused_body_is_never_the_next_request(connection):
    """The client may send the body all the same, or not: the connection closes, or takes exactly that body."""
    trap = b"GET /length/smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
    connection.send(HEAD % (b"/unread", len(trap)))
    assert connection.read_response().body == b"did not look"
    try:
        connection.send(trap + b"GET /text HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        rest = connection.read_to_eof()
    except ConnectionError:
        rest = b""
    assert b"smuggled" not in rest


def test_body_sent_without_waiting(connection):
    connection.send(HEAD % (b"/echo", 5) + b"hello")
    response = connection.read_response()
    assert (response.status, response.body) == (200, b"hello")
    assert [interim.status for interim in response.interim] in ([], [100])
    assert connection.get("/text").status == 200


def test_chunked_body(connection):
    connection.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n")
    assert connection.read_head().status == 100
    connection.send(b"5\r\nhello\r\n0\r\n\r\n")
    assert connection.read_response().body == b"hello"


def test_once_for_each_request(connection):
    for body in (b"first", b"again"):
        connection.send(HEAD % (b"/echo", 5))
        assert connection.read_head().status == 100
        connection.send(body)
        response = connection.read_response()
        assert (response.body, response.interim) == (body, [])
    plain = connection.request("POST", "/echo", body=b"plain")
    assert (plain.body, plain.interim) == (b"plain", [])


@uvicorn_differs("sends it to HTTP/1.0")
def test_not_for_http_10(connection):
    connection.send(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") % (b"/echo", 5) + b"hello")
    response = connection.read_response()
    assert (response.status, response.body, response.interim) == (200, b"hello", [])
