"""Several requests sent before the first answer: answered one after the other, in order (RFC 9112, 9.3.2)."""

import threading

import pytest


def get(path: str, *headers: str) -> bytes:
    """A GET as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode()


def test_order_is_kept(connection):
    connection.send(b"".join(get(f"/length/{number}") for number in range(100)))
    assert [connection.read_response().text for _ in range(100)] == [f"/length/{number}? 0" for number in range(100)]
    assert connection.is_quiet()


def test_order_is_kept_when_the_first_takes_longest(connection, apps, key):
    connection.send(get(f"/gate?key={key}a") + get("/text") + get(f"/gate?key={key}b") + get("/length/last"))
    apps.set(f"{key}b.release")
    apps.wait(f"{key}a.started")
    assert connection.is_quiet(), "an answer overtook the first"
    apps.set(f"{key}a.release")
    assert [connection.read_response().text for _ in range(4)] == [
        f"released {key}a",
        "some text",
        f"released {key}b",
        "/length/last? 0",
    ]


def test_streamed_and_plain_answers_in_turn(connection):
    paths = ["/response?body=ab&pieces=3", "/text", "/response?status=204", "/own-chunked", "/empty-pieces", "/text"]
    connection.send(b"".join(map(get, paths)))
    bodies = [connection.read_response().body for _ in paths]
    assert bodies == [b"ababab", b"some text", b"", b"first,second", b"abc", b"some text"]


def test_bodies_do_not_run_into_the_next_request(connection):
    body = get("/never")
    request = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    chunked = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(body),
        body,
    )
    connection.send(request + chunked + get("/text") + chunked + request + get("/length/end"))
    bodies = [connection.read_response().body for _ in range(6)]
    assert bodies == [body, body, b"some text", body, body, b"/length/end? 0"]
    assert connection.is_quiet()


def test_head_among_others(connection):
    connection.send(get("/text") + get("/text").replace(b"GET", b"HEAD") + get("/text"))
    assert connection.read_response().body == b"some text"
    head = connection.read_response(head=True)
    assert (head.header("content-length"), head.body) == ("9", b"")
    assert connection.read_response().body == b"some text"


def test_nothing_is_answered_after_close(connection):
    connection.send(get("/text") + get("/text", "Connection: close") + get("/length/too-late"))
    assert connection.read_response().header("connection") in (None, "keep-alive")
    assert connection.read_response().header("connection") == "close"
    assert connection.closed_by_peer()


def test_app_that_closes_ends_the_pipeline(connection):
    connection.send(get("/response?length=2&body=ok&header=connection:close") + get("/length/too-late"))
    assert connection.read_response().body == b"ok"
    assert connection.closed_by_peer()


def test_error_ends_the_pipeline(connection):
    connection.send(get("/raise-before") + get("/length/too-late"))
    assert connection.read_response().status == 500
    assert connection.closed_by_peer()


def test_byte_by_byte(connection):
    requests = (
        get("/length/one?a=b", "X-Long: " + "v" * 50)
        + b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"3\r\nabc\r\n1\r\nd\r\n0\r\nX-T: 1\r\n\r\n"
        + b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nefgh"
    )
    connection.socket.setsockopt(6, 1, 1)  # TCP_NODELAY: as many packets as bytes
    for number in range(len(requests)):
        connection.send(requests[number : number + 1])
    assert [connection.read_response().body for _ in range(3)] == [b"/length/one?a=b 0", b"abcd", b"efgh"]


@pytest.mark.parametrize("size", [2, 3, 7, 61, 1000, 4096])
def test_any_slicing_gives_the_same(connection, size):
    requests = b"".join(
        get(f"/length/{number}")
        + b"POST /length/%d HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s" % (number, number, b"b" * number)
        for number in range(20)
    )
    for begin in range(0, len(requests), size):
        connection.send(requests[begin : begin + size])
    for number in range(20):
        assert connection.read_response().text == f"/length/{number}? 0"
        assert connection.read_response().text == f"/length/{number}? {number}"


def test_client_that_reads_only_when_all_is_sent(server):
    """More answers than the socket buffers hold: the server must not lose any, nor stop for ever."""
    count, size = 400, 65536
    with server.connect() as connection:
        sender = threading.Thread(target=connection.send, args=(get(f"/large?size={size}") * count,))
        sender.start()
        try:
            for _ in range(count):
                assert len(connection.read_response().body) == size
        finally:
            sender.join()
        assert connection.is_quiet()


def test_client_leaves_a_full_pipeline(server, apps, key):
    """The requests behind the one in progress die with the connection; the server serves others."""
    with server.connect() as connection:
        connection.send(get(f"/gate?key={key}") + get(f"/gate?key={key}never") * 50)
        apps.wait(f"{key}.started")
        connection.reset()
    apps.set(f"{key}.release")
    apps.wait(f"{key}.done")
    assert server.get("/text").status == 200
    assert apps.get(f"{key}never.done") is None
