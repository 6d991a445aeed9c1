"""Clients that do anything at any moment: whatever they do, each answer is the right one, and the server goes on.

The clients draw from seeded generators, so a seed that fails can be run again. CHAOS_CLIENTS makes it longer.
"""

import os
import random
import socket
import threading
from contextlib import suppress

import pytest
from support import Connection, Truncated
from support.http_client import BadResponse

CLIENTS = int(os.environ.get("CHAOS_CLIENTS", "60"))


def chunked(rng: random.Random, body: bytes) -> bytes:
    """The body in chunks of random sizes."""
    framed, begin = b"", 0
    while begin < len(body):
        size = rng.randint(1, 5000)
        piece = body[begin : begin + size]
        framed += b"%x%s\r\n%s\r\n" % (len(piece), rng.choice([b"", b";x=y"]), piece)
        begin += size
    return framed + b"0\r\n" + rng.choice([b"", b"X-Trailer: 1\r\n"]) + b"\r\n"


class Exchange:
    """A request, and what its answer must be; `ends`: the connection may close behind it."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.head = False
        self.ends = False
        self.status = 200
        extra = b"".join(
            b"X-Header-%d: %s\r\n" % (count, b"v" * rng.randint(0, 300)) for count in range(rng.randint(0, 8))
        )
        body = rng.randbytes(rng.choice([0, 1, 10, 1000, 20_000, 100_000]))
        method, target, framed, self.body = getattr(self, rng.choice(KINDS))(rng, number, body)
        self.raw = b"%s %s HTTP/1.1\r\nHost: chaos\r\n%s%s" % (method, target, extra, framed or b"\r\n")

    def plain(self, rng, number, body):
        return b"GET", b"/length/%d" % number, None, b"/length/%d? 0" % number

    def only_head(self, rng, number, body):
        self.head = True
        return b"HEAD", b"/length/%d" % number, None, b""

    def with_length(self, rng, number, body):
        return b"POST", b"/echo", b"Content-Length: %d\r\n\r\n%s" % (len(body), body), body

    def with_chunks(self, rng, number, body):
        return b"PUT", b"/echo", b"Transfer-Encoding: chunked\r\n\r\n" + chunked(rng, body), body

    def streamed(self, rng, number, body):
        return b"POST", b"/echo-stream", b"Transfer-Encoding: chunked\r\n\r\n" + chunked(rng, body), body

    def pieces(self, rng, number, body):
        count = rng.randint(1, 20)
        return b"GET", b"/response?body=p%d&pieces=%d" % (number, count), None, b"p%d" % number * count

    def empty(self, rng, number, body):
        self.status = 204
        return b"GET", b"/response?status=204", None, b""

    def large(self, rng, number, body):
        size = rng.choice([100_000, 1_000_000])
        return b"GET", b"/large?size=%d" % size, None, b"x" * size

    def ignored_body(self, rng, number, body):
        self.ends = True
        return b"POST", b"/unread", b"Content-Length: %d\r\n\r\n%s" % (len(body), body), b"did not look"

    def failing(self, rng, number, body):
        self.ends, self.status = True, 500
        return b"GET", b"/raise-before", None, b"Internal Server Error"

    def closing(self, rng, number, body):
        self.ends = True
        return b"GET", b"/length/%d" % number, b"Connection: close\r\n\r\n", b"/length/%d? 0" % number


KINDS = [
    *["plain", "only_head", "with_length", "with_chunks", "streamed", "pieces", "empty", "large"] * 3,
    *["ignored_body", "failing", "closing"],
]


def sliced(rng: random.Random, data: bytes) -> list[bytes]:
    """The data in packets, as a network or a slow client may deliver it."""
    if rng.random() < 0.5:
        return [data]
    largest = rng.choice([3, 50, 1500, 65536])
    slices, begin = [], 0
    while begin < len(data) and len(slices) < 500:
        size = rng.randint(1, largest)
        slices.append(data[begin : begin + size])
        begin += size
    return [*slices, data[begin:]]


def send_slices(rng: random.Random, connection: Connection, data: bytes) -> None:
    """Send it all; that the server has closed meanwhile is for the reader to judge."""
    with suppress(OSError):
        for piece in sliced(rng, data):
            connection.send(piece)


def orderly_client(rng: random.Random, connection: Connection) -> None:
    """Pipeline a number of requests and check each answer."""
    exchanges = [Exchange(rng, number) for number in range(rng.randint(1, 12))]
    for number, exchange in enumerate(exchanges):
        if exchange.ends:
            del exchanges[number + 1 :]
            break
    data = b"".join(exchange.raw for exchange in exchanges)
    sender = threading.Thread(target=send_slices, args=(random.Random(rng.random()), connection, data))
    sender.start()
    try:
        for exchange in exchanges:
            response = connection.read_response(head=exchange.head)
            assert (response.status, response.body) == (exchange.status, exchange.body), exchange.raw[:200]
    finally:
        sender.join()


def rude_client(rng: random.Random, connection: Connection) -> None:
    """Send some of a number of requests, read some of the answers, and go."""
    data = b"".join(Exchange(rng, number).raw for number in range(rng.randint(1, 12)))
    sender = threading.Thread(
        target=send_slices, args=(random.Random(rng.random()), connection, data[: rng.randint(0, len(data))])
    )
    sender.start()
    with suppress(OSError, Truncated):
        connection.socket.settimeout(0.05)
        for _ in range(rng.randint(0, 5)):
            connection.socket.recv(rng.choice([1, 100, 100_000]))
    if rng.random() < 0.3:
        with suppress(OSError):
            connection.socket.shutdown(rng.choice([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR]))
    sender.join()
    rng.choice([connection.close, connection.reset])()


def broken_client(rng: random.Random, connection: Connection) -> None:
    """Send requests with some bytes changed; what comes back is HTTP, or the end."""
    data = bytearray(b"".join(Exchange(rng, number).raw for number in range(rng.randint(1, 3)))[:30_000])
    for _ in range(rng.randint(1, 10)):
        data[rng.randrange(min(len(data), 500))] = rng.choice(b"\r\n\0 :;,/%AZaz09\x7f\xff")
    connection.socket.settimeout(2)
    send_slices(rng, connection, bytes(data))
    with suppress(OSError):
        connection.socket.shutdown(socket.SHUT_WR)
    with suppress(OSError, Truncated, AssertionError):
        for _ in range(10):
            try:
                connection.read_response()
            except BadResponse:
                # The answer to what has become a HEAD, or a 204, is read as if it had the body that it does not have.
                break


@pytest.mark.parametrize("seed", range(3))
def test_chaos(server, seed):
    failures = []

    def client(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        behave = rng.choice([orderly_client, orderly_client, rude_client, broken_client])
        try:
            with server.connect(receive_buffer=rng.choice([None, None, 4096])) as connection:
                behave(rng, connection)
        except Exception as exc:
            failures.append((number, behave.__name__, repr(exc)[:500]))

    for begin in range(0, CLIENTS, 20):
        threads = [threading.Thread(target=client, args=(number,)) for number in range(begin, min(begin + 20, CLIENTS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert server.get("/text").body == b"some text"
