"""Limits of size, number and time. The time limits are small here; each test waits for what the server does."""

import os
import select

import pytest
from support import KIND, ServerProcess, Truncated, control
from support.http_client import TIMEOUT

pytestmark = pytest.mark.skipif(KIND != "bolide", reason="options of bolide")
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def small(servers):
    """A server with small limits of size and number."""
    options = ["--limit-max-body", "1000", "--limit-request-headers", "10", "--h11-max-incomplete-event-size", "1000"]
    with servers.lend("apps:app", *options) as server:
        yield server


@pytest.fixture
def hasty(servers):
    """A server with small limits of time, but the one of an idle connection."""
    options = ["--timeout-request-head", "0.3", "--timeout-request-body", "0.3", "--timeout-write", "0.5"]
    with servers.lend("apps:app", *options, "--timeout-keep-alive", "60", "--no-access-log") as server:
        yield server


def expect_refusal(connection, status):
    """The next and last thing on this connection is this answer."""
    response = connection.read_response()
    assert response.status == status
    assert response.header("connection") == "close"
    assert connection.closed_by_peer()


# --- size and number --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_body_up_to_the_limit(small, size):
    with small.connect() as connection:
        assert connection.request("POST", "/echo", body=b"b" * size).body == b"b" * size
        assert connection.get("/text").status == 200


@pytest.mark.parametrize("size", [1001, 2**40, 2**63 - 1])
def test_length_beyond_the_limit(small, size):
    """Refused before a byte of it has come, and before the application runs."""
    with small.connect() as connection:
        connection.send(f"POST /no-such-app HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n".encode())
        expect_refusal(connection, 413)


def test_length_beyond_the_limit_with_expect(small):
    """100 Continue is not sent."""
    with small.connect() as connection:
        connection.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        response = connection.read_response()
        assert (response.status, response.interim) == (413, [])


@pytest.mark.parametrize("chunk", [1, 10, 500, 1001, 100_000])
def test_chunks_beyond_the_limit(small, chunk):
    with small.connect() as connection:
        connection.send(f"POST /echo HTTP/1.1\r\nHost: test\r\n{CHUNKED}".encode())
        connection.send((b"%x\r\n" % chunk + b"b" * chunk + b"\r\n") * (1000 // chunk + 1))
        expect_refusal(connection, 413)


def test_chunks_up_to_the_limit(small):
    with small.connect() as connection:
        connection.send(
            f"POST /length HTTP/1.1\r\nHost: test\r\n{CHUNKED}".encode() + b"1\r\nb\r\n" * 1000 + b"0\r\n\r\n"
        )
        assert connection.read_response().text.endswith(" 1000")
        assert connection.get("/text").status == 200


def test_application_is_told_of_the_cut(small, key):
    """It reads already when the limit is reached: a disconnect ends the body, and the client gets 413."""
    with small.connect() as connection:
        connection.send(f"POST /upload-cut?key={key} HTTP/1.1\r\nHost: test\r\n{CHUNKED}".encode() + b"5\r\nfirst\r\n")
        apps = control(small)
        assert apps.wait(f"{key}.reading") == 5
        connection.send(b"1000\r\n" + b"b" * 0x1000 + b"\r\n")
        message, _ = apps.wait(f"{key}.ended")
        assert message == {"type": "http.disconnect"}
        expect_refusal(connection, 413)


def test_number_of_fields(small):
    with small.connect() as connection:
        fields = [(f"X-{number}", "a") for number in range(9)]
        assert connection.request("GET", "/text", fields).status == 200
        connection.send_request("GET", "/text", [*fields, ("X-Last", "a")])
        expect_refusal(connection, 431)


@pytest.mark.parametrize("first", [1, 6, 9])
def test_number_of_fields_in_two_reads(small, first):
    """However many of them the first piece of the head has."""
    lines = [b"X-%d: a\r\n" % number for number in range(10)]
    with small.connect() as connection, small.connect() as other:
        connection.send(b"GET /text HTTP/1.1\r\nHost: test\r\n" + b"".join(lines[:first]))
        other.get("/text")
        other.get("/text")  # the turn in which the piece has come is over
        connection.send(b"".join(lines[first:]) + b"\r\n")
        expect_refusal(connection, 431)


@pytest.mark.parametrize("pieces", [1, 100])
@pytest.mark.parametrize(("target", "value", "status"), [(2000, 1, 414), (1, 2000, 431), (800, 800, 431)])
def test_size_of_the_head(small, target, value, status, pieces):
    with small.connect() as connection:
        raw = b"GET /%s HTTP/1.1\r\nHost: test\r\nX-A: %s\r\n\r\n" % (b"a" * target, b"b" * value)
        step = len(raw) // pieces
        for start in range(0, len(raw), step):
            connection.send(raw[start : start + step])
        expect_refusal(connection, status)


@pytest.fixture
def narrow(servers):
    """A server that takes heads of 1000 bytes, and bodies of any size."""
    with servers.lend("apps:app", "--h11-max-incomplete-event-size", "1000") as server:
        yield server


def send_chunks(connection, count, data, extension):
    chunk = b"%x;%s\r\n%s\r\n" % (len(data), extension, data)
    connection.send(f"POST /length HTTP/1.1\r\nHost: test\r\n{CHUNKED}".encode() + chunk * count)


@pytest.mark.parametrize(("data", "extension"), [(8192, b"chunk-signature=" + b"a" * 64), (64, b"s=" + b"a" * 64)])
def test_signed_chunks(narrow, data, extension):
    """Extensions in proportion to the data, as of a client that signs each chunk, are not limited in total."""
    with narrow.connect() as connection:
        send_chunks(connection, 1000, b"b" * data, extension)
        connection.send(b"0\r\n\r\n")
        assert connection.read_response().text.endswith(f" {1000 * data}")
        assert connection.get("/text").status == 200


@pytest.mark.parametrize(("count", "data", "size"), [(1000, 1, 100), (1000, 10, 100), (1, 10, 2000)])
def test_chunks_of_little_but_extensions(narrow, count, data, size):
    with narrow.connect() as connection:
        send_chunks(connection, count, b"b" * data, b"a=" + b"b" * size)
        expect_refusal(connection, 431)


@pytest.mark.parametrize("rest", [b"1;a=%s\r\nb\r\n0\r\n\r\n", b"0;a=%s\r\n\r\n", b"0\r\na: %s\r\n\r\n"])
def test_data_earn_no_long_extension(narrow, rest):
    """One extension, or the trailers, have the limit of a head behind however much data."""
    with narrow.connect() as connection:
        send_chunks(connection, 10, b"b" * 10_000, b"a=b")
        connection.send(rest % (b"b" * 2000))
        expect_refusal(connection, 431)


def test_limit_of_concurrency(key):
    """Also: who is refused does not count for long."""
    with ServerProcess("apps:app", "--limit-concurrency", "2") as server, server.connect() as first:
        first.send_request("GET", f"/gate?key={key}")
        with server.connect() as second:
            second.send_request("GET", "/text")
            expect_refusal(second, 503)
        first.close()
        server.log.wait_for("Exceeded concurrency limit")


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX-", b"\r\n"])
def test_head_that_does_not_end(hasty, sent):
    with hasty.connect() as connection:
        connection.send(sent)
        expect_refusal(connection, 408)


def test_head_that_does_not_begin(hasty):
    with hasty.connect() as connection:
        assert connection.closed_by_peer()


def test_head_that_drips(hasty):
    """Each byte in time, the whole not."""
    with hasty.connect() as connection, pytest.raises(ConnectionError):
        for number in range(10_000):
            connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n"[number : number + 1] or b"X")
            connection.socket.settimeout(0.02)
            try:
                answer = connection.socket.recv(4096)
            except TimeoutError:
                continue
            assert answer.startswith(b"HTTP/1.1 408 ") or answer == b""
            if answer == b"":
                raise ConnectionResetError


def test_second_head_that_does_not_end(hasty):
    with hasty.connect() as connection:
        assert connection.get("/text").status == 200
        connection.send(b"GET / HTTP/1.1\r\n")
        expect_refusal(connection, 408)


@pytest.mark.parametrize(
    "framing", ["Content-Length: 10\r\n\r\nhello", CHUNKED + "5\r\nhello", CHUNKED + "5\r\nhello\r\n", CHUNKED]
)
def test_body_that_does_not_end(hasty, framing):
    with hasty.connect() as connection:
        connection.send(f"POST /echo HTTP/1.1\r\nHost: test\r\n{framing}".encode())
        expect_refusal(connection, 408)


def test_application_is_told_of_a_body_that_does_not_end(hasty, key):
    with hasty.connect() as connection:
        connection.send(f"POST /upload-cut?key={key} HTTP/1.1\r\nHost: test\r\n{CHUNKED}".encode() + b"5\r\nfirst\r\n")
        message, size = control(hasty).wait(f"{key}.ended")
        assert (message, size) == ({"type": "http.disconnect"}, 5)


def test_application_may_take_its_time(hasty, key):
    """The limit is on the client alone: a request that is complete may take as long as it likes."""
    with hasty.connect() as connection, hasty.connect() as other:
        connection.send_request("GET", f"/gate?key={key}")
        apps = control(hasty)
        apps.wait(f"{key}.started")
        other.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello")
        expect_refusal(other, 408)
        apps.set(f"{key}.release")
        assert connection.read_response().status == 200


def test_rate_of_a_body():
    """A byte now and then is progress without a limit of the rate, and none with it."""
    with ServerProcess("apps:app", "--timeout-request-body", "0.3", "--limit-body-rate", "1000") as server:
        with server.connect() as connection:
            connection.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n")
            connection.socket.settimeout(0.02)
            answer = b""
            while not answer:
                connection.send(b"b")
                try:
                    answer = connection.socket.recv(4096)
                except TimeoutError:
                    continue
            assert answer.startswith(b"HTTP/1.1 408 ")
        with server.connect() as connection:
            assert len(connection.request("POST", "/echo", body=b"b" * 100_000).body) == 100_000


def test_client_that_does_not_read(hasty, key):
    """It is cut off; the application learns it from send()."""
    with hasty.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", f"/disconnect-while-suspended?key={key}")
        assert control(hasty).wait(f"{key}.ended") is not None
        with pytest.raises((Truncated, ConnectionError)):
            connection.read_response()


def test_client_that_does_not_read_a_complete_response(hasty):
    """The application is done, its output waits: such a connection does not stay for ever."""
    with hasty.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", "/large?size=50000000", [("Connection", "close")])
        poll = select.poll()
        poll.register(connection.socket, select.POLLHUP | select.POLLERR)
        assert poll.poll(TIMEOUT * 1000), "the connection stays"
        with pytest.raises(ConnectionResetError):
            connection.read_to_eof()


def test_client_that_reads_slowly_gets_it_all(hasty):
    """Progress, however little, is progress."""
    with hasty.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", "/large?size=3000000")
        assert len(connection.read_response().body) == 3_000_000


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_file_and_a_client_that_reads_slowly(hasty, tmp_path, kind):
    """The same, where the kernel sends."""
    path = tmp_path / "file"
    path.write_bytes(bytes(20_000_000))
    with hasty.connect(receive_buffer=4096) as connection:
        connection.send_request("GET", f"/{kind}?as=number&plan=[{{}}]&path={str(path).encode().hex()}")
        assert connection.read_head().status == 200
        size = int(connection.read_line(), 16)
        assert len(connection.read_exactly(size)) == size == 20_000_000


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_file_and_a_client_that_does_not_read(hasty, key, tmp_path, kind):
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 1 << 30)
    with hasty.connect(receive_buffer=4096) as connection:
        target = f"/{kind}?key={key}&as=number&plan=[{{}}]&path={str(path).encode().hex()}"
        connection.send_request("GET", target)
        assert control(hasty).wait(key) == "ClientDisconnected"
        with pytest.raises((Truncated, ConnectionError)):
            connection.read_response()
