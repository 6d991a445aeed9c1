"""What is not HTTP is answered by 400 and the end of the connection; it never reaches an app."""

import contextlib

import pytest
from support import Truncated

GOOD = b"GET /text HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: test\r\n"
MALFORMED = {
    "nonsense": b"nonsense\r\n\r\n",
    "binary": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "zeros": b"\0" * 100,
    "no target": b"GET HTTP/1.1\r\nHost: test\r\n\r\n",
    "no version": b"GET / \r\nHost: test\r\n\r\n",
    "wrong protocol": b"GET / FTP/1.1\r\nHost: test\r\n\r\n",
    "wrong version": b"GET / HTTP/9.9\r\nHost: test\r\n\r\n",
    "version without digits": b"GET / HTTP/x.y\r\nHost: test\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n",
    "control byte in target": b"GET /a\x01b HTTP/1.1\r\nHost: test\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost: test\r\nnonsense\r\n\r\n",
    "header without name": b"GET / HTTP/1.1\r\nHost: test\r\n: value\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : test\r\n\r\n",
    "space in name": b"GET / HTTP/1.1\r\nHost: test\r\nX Y: z\r\n\r\n",
    "control byte in name": b"GET / HTTP/1.1\r\nHost: test\r\nX\x01: z\r\n\r\n",
    "control byte in value": b"GET / HTTP/1.1\r\nHost: test\r\nX: a\x00b\r\n\r\n",
    "bare CR in value": b"GET / HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n",
    "length not a number": POST + b"Content-Length: five\r\n\r\nhello",
    "length negative": POST + b"Content-Length: -5\r\n\r\nhello",
    "length signed": POST + b"Content-Length: +5\r\n\r\nhello",
    "length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "length too large": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "length empty": POST + b"Content-Length: \r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "coding after chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
}
BAD_CHUNKS = {
    "size not hexadecimal": b"xyz\r\nhello\r\n0\r\n\r\n",
    "size empty": b"\r\nhello\r\n0\r\n\r\n",
    "size negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "size too large": b"ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "no CRLF after data": b"5\r\nhello0\r\n\r\n",
    "bad trailer": b"5\r\nhello\r\n0\r\nno colon here\r\n\r\n",
}


def expect_400(connection):
    """The next and last thing on this connection is a 400."""
    response = connection.read_response()
    assert (response.status, response.reason) == (400, "Bad Request")
    assert response.header("connection") == "close"
    assert connection.closed_by_peer()


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request(connection, name):
    connection.send(MALFORMED[name])
    expect_400(connection)


@pytest.mark.parametrize("name", ["nonsense", "header without colon", "length not a number", "length and chunks"])
def test_malformed_after_a_good_one(connection, name):
    assert connection.request("GET", "/text").status == 200
    connection.send(MALFORMED[name])
    expect_400(connection)


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks_in_one_piece(connection, name):
    """The app, which reads the whole body, must not be told that it is complete."""
    connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + BAD_CHUNKS[name])
    try:
        response = connection.read_response()
    except (Truncated, ConnectionError):
        return
    assert response.status == 400
    assert connection.closed_by_peer()


@pytest.mark.parametrize("name", ["size not hexadecimal", "longer than its size", "bad trailer"])
def test_bad_chunks_after_the_app_began(connection, apps, key, name):
    """The app is already reading when the bad bytes come: it sees a disconnect, the client a 400 or the end."""
    connection.send(b"POST /upload-cut?key=%s HTTP/1.1\r\nHost: test\r\n" % key.encode())
    connection.send(b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    assert apps.wait(f"{key}.reading") == 5
    connection.send(BAD_CHUNKS[name])
    message, size = apps.wait(f"{key}.ended")
    assert message == {"type": "http.disconnect"}
    assert size in (5, 8, 10)
    with contextlib.suppress(Truncated, ConnectionError):
        assert connection.read_response().status == 400


def test_bytes_after_the_bad_ones_are_not_answered(connection):
    connection.send(b"nonsense\r\n\r\n" + GOOD * 3)
    expect_400(connection)


def test_request_in_progress_survives_bad_bytes_behind_it(connection, apps, key):
    """What follows is malformed, the request before it was not: it is answered, or cut, never answered twice."""
    connection.send(b"GET /gate?key=%s HTTP/1.1\r\nHost: test\r\n\r\n" % key.encode())
    apps.wait(f"{key}.started")
    connection.send(b"nonsense\r\n\r\n")
    apps.set(f"{key}.release")
    apps.wait(f"{key}.done")
    try:
        responses = [connection.read_response()]
        responses += [connection.read_response()]
    except (Truncated, ConnectionError):
        pass
    assert [response.status for response in responses] in ([200], [400], [200, 400])


def test_warning_is_logged(server, connection):
    connection.send(b"nonsense\r\n\r\n")
    expect_400(connection)
    server.log.wait_for("WARNING.*Invalid HTTP request received")


def test_server_goes_on(server):
    for request in MALFORMED.values():
        with server.connect() as connection:
            connection.send(request)
    assert server.get("/text").body == b"some text"
