"""Methods that are in no list of the server's are the application's to judge: RFC 9110, section 9.1."""

import socket

import pytest

OTHERS = [
    b"FROBNICATE",
    b"GETX",
    b"GE",
    b"FROB-2",
    b"!#$%&'*+.^_`|~",
    b"X" * 64,
    b"SETUP",
    b"GET_PARAMETER",
    b"POSTPOST",
]
NOT_IMPLEMENTED = [b"get", b"Get", b"FROBnicate", b"X" * 65, b"X" * 100_000]
MALFORMED = [b"GE(T", b"FROB\tNICATE", b"F\x00", b"FROB\xe9", b"FROB/", b"FROBNICATE:", b"FROB\rX", b"FROB\nX"]


def reading(method, target=b"/scope", fields=b"", body=b""):
    return b"%s %s HTTP/1.1\r\nHost: test\r\n%s\r\n%s" % (method, target, fields, body)


def expect_refusal(connection, status):
    response = connection.read_response()
    assert response.status == status
    assert response.header("connection") == "close"
    assert connection.closed_by_peer()


@pytest.mark.parametrize("method", OTHERS)
def test_other_method_reaches_the_application(connection, method):
    for _ in range(2):
        connection.send(reading(method))
        response = connection.read_response()
        assert response.status == 200
        assert f"'method': {method.decode()!r}" in response.text


@pytest.mark.parametrize("method", [b"FROBNICATE", b"GETX", b"SETUP", b"PUTT"])
def test_other_method_in_pieces(connection, method):
    for byte in b"\r\n" + reading(method):
        connection.send(bytes([byte]))
    assert f"'method': {method.decode()!r}" in connection.read_response().text
    connection.send(reading(b"GET"))
    assert "'method': 'GET'" in connection.read_response().text


@pytest.mark.parametrize(
    "fields, body", [(b"Content-Length: 5\r\n", b"hello"), (b"Transfer-Encoding: chunked\r\n", None)]
)
def test_body_of_another_method(connection, fields, body):
    sent = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n" if body is None else body
    connection.send(reading(b"FROBNICATE", b"/echo", fields, sent) * 2)
    for _ in range(2):
        assert connection.read_response().body == b"hello"


def test_methods_among_each_other_in_a_pipeline(connection):
    methods = [b"GET", b"FROBNICATE", b"POST", b"GETX", b"SETUP", b"DELETE", b"FROBNICATE"]
    connection.send(b"".join(reading(method) for method in methods))
    for method in methods:
        assert f"'method': {method.decode()!r}" in connection.read_response().text


@pytest.mark.parametrize("method", NOT_IMPLEMENTED, ids=lambda method: method[:20].decode())
def test_method_that_no_application_gets(connection, method):
    """What is not in capitals could not be told from what is, in a scope; and names have an end."""
    connection.send(reading(method))
    expect_refusal(connection, 501)


@pytest.mark.parametrize("method", MALFORMED)
def test_malformed_method(connection, method):
    connection.send(reading(method) + reading(b"GET"))
    expect_refusal(connection, 400)


@pytest.mark.parametrize(
    "line",
    [
        b"FROBNICATE  / HTTP/1.1",
        b"FROBNICATE / HTTP/1.1 ",
        b"FROBNICATE /  HTTP/1.1",
        b"FROBNICATE HTTP/1.1",
        b"FROBNICATE /",
        b"FROBNICATE * HTTP/1.1",
        b"FROBNICATE a:443 HTTP/1.1",
        b"FROBNICATE / FTP/1.1",
        b"SETUP / RTSP/1.0",
        b" FROBNICATE / HTTP/1.1",
        b"\nFROBNICATE / HTTP/1.1",
        b"PRI / HTTP/1.1",
    ],
)
def test_the_rest_of_the_line_is_as_strict(connection, line):
    connection.send(line + b"\r\nHost: test\r\n\r\n" + reading(b"GET"))
    response = connection.read_response()
    assert response.status in (400, 501, 505)
    assert connection.closed_by_peer()


def test_end_within_another_method(connection):
    connection.send(b"FROBNIC")
    connection.socket.shutdown(socket.SHUT_WR)
    assert connection.closed_by_peer()
