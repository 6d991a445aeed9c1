"""Bodies of requests and responses: Content-Length and chunks, both ways (RFC 9112, sections 6 and 7)."""

import pytest
from support import Truncated, uvicorn_differs

POST = b"POST %s HTTP/1.1\r\nHost: test\r\n"
SIZES = [0, 1, 2, 100, 1023, 1024, 1025, 16384, 65535, 65536, 65537, 1_000_000, 5_000_000]


def pattern(size: int) -> bytes:
    """Bytes in which a piece that is lost, doubled or moved shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_body_with_length_arrives_whole(connection, size):
    assert connection.request("POST", "/echo", body=pattern(size)).body == pattern(size)
    assert connection.get("/text").status == 200


@pytest.mark.parametrize("size", SIZES)
def test_body_streams_through(connection, size):
    response = connection.request("POST", "/echo-stream", body=pattern(size))
    assert response.header("transfer-encoding") == "chunked"
    assert response.body == pattern(size)


@pytest.mark.parametrize("chunk_size", [1, 10, 1000, 70_000])
def test_chunked_request(connection, chunk_size):
    body = pattern(min(chunk_size * 50, 500_000))
    chunks = [body[begin : begin + chunk_size] for begin in range(0, len(body), chunk_size)]
    connection.send(POST % b"/echo" + b"Transfer-Encoding: chunked\r\n\r\n")
    connection.send(b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n")
    assert connection.read_response().body == body
    assert connection.get("/text").status == 200


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
        (b'5;quoted="a value"\r\nhello\r\n0\r\n\r\n', b"hello"),
        (b"00005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"5\r\nhello\r\n0\r\nX-Trailer: value\r\nX-Other: 2\r\n\r\n", b"hello"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    ],
)
def test_forms_of_chunks(connection, sent, body):
    connection.send(POST % b"/echo" + b"Transfer-Encoding: chunked\r\n\r\n" + sent)
    assert connection.read_response().body == body
    assert connection.get("/text").status == 200


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "CHUNKED"])
def test_coding_name_in_any_case(connection, coding):
    connection.send(POST % b"/echo" + f"Transfer-Encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode())
    assert connection.read_response().body == b"abc"


def test_request_without_body_headers_has_none(connection):
    connection.send(POST % b"/messages" + b"\r\n")
    assert connection.read_response().body == repr([{"type": "http.request", "body": b"", "more_body": False}]).encode()


def test_chunks_are_handed_on_as_they_come(connection):
    """A piece of the request's body comes back while the rest of it was not sent yet: nothing collects it first."""
    connection.send(POST % b"/echo-stream" + b"Transfer-Encoding: chunked\r\n\r\n")
    head = None
    for piece in (b"first", b"second", b"third"):
        connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        head = head or connection.read_head()
        assert connection.read_chunk() == piece
    connection.send(b"0\r\n\r\n")
    assert connection.read_chunk() == b""
    assert connection.read_line() == b""


def test_response_starts_before_its_body_is_there(connection, apps, key):
    connection.send_request("GET", f"/drip?key={key}&pieces=3")
    assert connection.read_head().header("transfer-encoding") == "chunked"
    for number in range(3):
        if number:
            apps.set(f"{key}.{number}")
        assert connection.read_chunk() == b"piece %d" % number
    assert connection.read_chunk() == b""


# --- responses ----------------------------------------------------------------------------------------------


def test_length_of_the_app_is_kept(connection):
    response = connection.get("/response?length=4&body=ab&pieces=2")
    assert response.header("content-length") == "4"
    assert response.header("transfer-encoding") is None
    assert response.body == b"abab"


def test_no_length_means_chunks(connection):
    response = connection.get("/response?body=ab&pieces=3")
    assert response.header("transfer-encoding") == "chunked"
    assert response.header("content-length") is None
    assert response.body == b"ababab"
    assert connection.get("/text").status == 200


def test_chunked_by_the_app_is_framed_once(connection):
    response = connection.get("/own-chunked")
    assert response.header("transfer-encoding") == "chunked"
    assert response.body == b"first,second"
    assert connection.get("/text").status == 200


def test_empty_pieces_do_not_end_the_body(connection):
    assert connection.get("/empty-pieces").body == b"abc"
    assert connection.get("/text").status == 200


@pytest.mark.parametrize("path", ["/bare-final", "/bare-only"])
def test_final_event_of_nothing_but_its_type(connection, path):
    assert connection.get(path).body == (b"all" if path == "/bare-final" else b"")
    assert connection.get("/text").status == 200


@pytest.mark.parametrize("status", [200, 201, 404, 500])
def test_empty_body(connection, status):
    response = connection.get(f"/response?status={status}")
    assert (response.status, response.body) == (status, b"")
    assert connection.get("/text").status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_body(connection, status):
    response = connection.get(f"/response?status={status}")
    assert response.status == status
    assert response.header("transfer-encoding") is None
    assert connection.get("/text").body == b"some text"


def test_length_of_304_is_kept(connection):
    """RFC 9110, 8.6: it tells what a 200 would have had."""
    response = connection.get("/response?status=304&length=0")
    assert response.header("content-length") == "0"
    assert connection.get("/text").body == b"some text"


@pytest.mark.parametrize("status", [200, 299, 418, 599])
def test_any_status(connection, status):
    response = connection.get(f"/response?status={status}&length=0")
    assert response.status == status


@pytest.mark.parametrize(
    ("status", "reason"), [(200, "OK"), (201, "Created"), (404, "Not Found"), (503, "Service Unavailable")]
)
def test_reason_phrase(connection, status, reason):
    assert connection.get(f"/response?status={status}&length=0").reason == reason


def test_head_with_length(connection):
    response = connection.request("HEAD", "/text")
    assert (response.status, response.header("content-length")) == (200, "9")
    assert connection.get("/text").body == b"some text"


@pytest.mark.parametrize("path", ["/response?body=abc&pieces=3", "/own-chunked", "/bare-final"])
def test_head_without_length(connection, path):
    assert connection.request("HEAD", path).status == 200
    assert connection.get("/text").body == b"some text"


def test_body_longer_than_announced_is_not_sent(connection):
    """The app's mistake: the client never sees more than was announced, and no second response in its place."""
    connection.send_request("GET", "/response?length=3&body=abcdef")
    try:
        assert len(connection.read_response().body) <= 3
    except Truncated as cut:
        assert len(cut.args[0]) <= 3
    assert connection.closed_by_peer()


def test_body_shorter_than_announced_ends_the_connection(connection):
    connection.send_request("GET", "/response?length=10&body=abc")
    with pytest.raises(Truncated):
        connection.read_response()


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 1_000_000, 20_000_000])
def test_large_response(connection, size):
    response = connection.get(f"/large?size={size}")
    assert response.body == b"x" * size
    assert connection.get("/text").status == 200


@uvicorn_differs("sends the body to HTTP/1.0 in chunks")
def test_chunked_by_the_app_for_http_10(connection):
    """RFC 9112, 6.1: a server must not send Transfer-Encoding to a client of HTTP/1.0."""
    response = connection.request("GET", "/own-chunked", version="1.0")
    assert response.header("transfer-encoding") is None
    assert response.body == b"first,second"
