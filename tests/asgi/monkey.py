"""Serves clients with an application that sends and receives odd messages at odd times, at random, until time is up.

`monkey.py <seed> <seconds>`: nothing of it may crash the process or hang it. Exceptions are fine. Run by
test_asgi_hazards.py; see tests/loop/monkey.py, of which this is another kind.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "loop"), str(Path(__file__).parents[1])]
import monkey as of_loop  # noqa: E402
from support.certificates import authority  # noqa: E402

from bolide._core import Server  # noqa: E402

GET = b"GET /a?b HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
EXPECT = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
FRAMES = [
    b"\x81\x85\0\0\0\0hello",
    b"\x82\x85\0\0\0\0hello",
    b"\x01\x82\0\0\0\0he\x80\x83\0\0\0\0llo",
    b"\x89\x82\0\0\0\0hi",
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"\xff" * 20,
    b"\x82\xfe\x9c\x40\0\0\0\0" + b"z" * 40_000,
]
TYPES = [
    *("http.response.start", "http.response.body", "http.response.trailers", "http.response.early_hint"),
    *("http.response.pathsend", "http.response.zerocopysend", "websocket.accept", "websocket.send"),
    *("websocket.close", "websocket.http.response.start", "websocket.http.response.body", "nonsense"),
]


class Message(dict):
    """A message that acts when it is read."""

    monkey: "Monkey"

    def __getitem__(self, key):
        self.monkey.maybe()
        return super().__getitem__(key)


class Body(bytearray):
    """A body that acts when it is measured."""

    monkey: "Monkey"

    def __len__(self):
        self.monkey.maybe()
        return super().__len__()


class Pair(list):
    """A header that acts when it is read."""

    monkey: "Monkey"

    def __iter__(self):
        self.monkey.maybe()
        return super().__iter__()


class Text(str):
    """A text that acts at its end."""

    monkey: "Monkey"

    def __del__(self):
        self.monkey.maybe()


class Content(bytes):
    """Bytes that act at their end."""

    monkey: "Monkey"

    def __del__(self):
        self.monkey.maybe()


class Number:
    """A number that acts when it is read."""

    monkey: "Monkey"

    def __index__(self):
        self.monkey.maybe()
        return 1000


class Truth:
    """A truth that acts when it is asked for."""

    monkey: "Monkey"

    def __bool__(self):
        self.monkey.maybe()
        return True


class Monkey(of_loop.Monkey):
    """Calls methods of a Server and what it gives to its application."""

    def __init__(self, seed):
        super().__init__("bolide", seed)
        self.listening = []
        self.clients = []
        self.tls = authority().server()
        for kind in (Message, Body, Pair, Text, Content, Number, Truth):
            kind.monkey = self

    def argument(self):
        """As its base, with contexts of TLS."""
        return self.tls if self.random.random() < 0.05 else super().argument()

    def headers(self):
        """Headers, mostly valid."""
        choices = [
            [(b"content-length", b"2")],
            [(b"x", b"y" * self.random.choice([1, 5000]))],
            [],
            ((b"a", b"b"),),
            [Pair([b"x", b"y"])],
            iter([(b"x", b"y"), Pair([b"content-length", b"2"])]),
            [(b"transfer-encoding", b"chunked")],
            [(b"connection", b"close")],
            self.argument(),
        ]
        return self.random.choice(choices)

    def message(self, *likely):
        """A message, mostly valid; of one of the likely types, if any are given, or of any."""
        odd = self.random.random
        message = {
            "type": self.random.choice(likely if likely and odd() < 0.8 else TYPES),
            "status": self.random.choice([200, 204, 304, 403, 500]) if odd() < 0.9 else self.argument(),
            "headers": self.headers(),
            "body": self.random.choice(
                [b"ok", b"", b"z" * 200_000, Body(b"ok"), Content(b"z" * 50_000), memoryview(b"ok"), self.argument()]
            ),
            "bytes": self.random.choice(
                [None, b"hello", os.urandom(100_000), Body(b"x"), Content(b"y" * 50_000), self.argument()]
            ),
            "text": self.random.choice([None, "text", "\xe4" * 5000, Text("x" * 50_000), self.argument()]),
            "file": self.file if odd() < 0.9 else self.argument(),
            "path": __file__ if odd() < 0.9 else self.argument(),
            "links": [b"</x>; rel=preload"] if odd() < 0.9 else self.argument(),
        }
        for key, value in [
            *(("more_body", True), ("more_body", Truth()), ("trailers", True), ("trailers", Truth())),
            *(("code", 1000), ("code", Number()), ("reason", "enough"), ("reason", Text("enough"))),
            *(("count", 9), ("count", Number()), ("offset", Number())),
        ]:
            if odd() < 0.2:
                message[key] = value if odd() < 0.8 else self.argument()
        return Message(message) if odd() < 0.3 else message

    async def app(self, scope, receive, send):
        """The application."""
        self.keep(receive)
        self.keep(send)
        kind = scope["type"] if scope["type"] == "websocket" else "http.response"
        opening = [name for name in TYPES if name.startswith(kind) and name.endswith(("start", "accept"))]
        other = [name for name in TYPES if name.startswith(kind) and name not in opening]
        likely = opening
        for _ in range(self.random.randrange(10)):
            self.maybe()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(0.02):
                    if self.random.random() < 0.3:
                        await receive()
                    else:
                        await send(self.message(*likely))
                        likely = other
        if self.random.random() < 0.1:
            raise self.random.choice([ValueError, asyncio.CancelledError])

    def make_server(self):
        """A Server that listens, with some options."""
        options = {
            "access_log": lambda *_: self.maybe(),
            "access_details": True,
            "forwarded": lambda scope: self.maybe(),
            "tls_extension": lambda ssl_object: self.maybe() or {},
            "limit_max_requests": 20,
            "on_max_requests": self.maybe,
            "limit_concurrency": 4,
            "health_path": b"/a",
            "state": {},
            "timeout_keep_alive": 0.05,
            "ws_max_queue": 2,
            "limit_max_body": 1000,
            "reset_contextvars": True,
        }
        chosen = {name: value for name, value in options.items() if self.random.random() < 0.2}
        if self.random.random() < 0.1:
            chosen[self.random.choice(list(options))] = self.argument()
        server = Server(self.loop, self.app, **chosen)
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        server.listen(sock, 10, self.tls if self.random.random() < 0.2 else None)
        self.listening = [*self.listening[-3:], sock]
        self.kept.insert(0, server)
        for _ in range(5):
            self.call_a_client()

    def call_a_client(self):
        """Connect, send something, read or not, close or not."""
        if not self.listening:
            return
        client = socket.socket()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(self.listening[-1].getsockname())
        requests = [GET, GET, HEAD, OLD, POST, CHUNKED, EXPECT, UPGRADE, UPGRADE, GET[:10], b"\0\r\n"]
        with contextlib.suppress(OSError):
            client.send(self.random.choice(requests))
        self.clients.append((client, [self.random.choice(requests) for _ in range(self.random.randrange(3))]))
        if len(self.clients) > 20:
            self.clients.pop(0)[0].close()

    def serve_clients(self):
        """Let each client send or read a little."""
        for client, to_send in list(self.clients):
            with contextlib.suppress(OSError):
                if to_send:
                    client.send(to_send.pop(0))
                elif self.random.random() < 0.5:
                    client.recv(self.random.choice([1, 1000, 1_000_000]))
                else:
                    to_send.append(self.random.choice([*FRAMES, GET]))
            if self.random.random() < 0.03:
                client.close()
                self.clients.remove((client, to_send))

    def useful(self):
        """What gets things going."""
        chance = self.random.randrange(12)
        if chance == 0:
            self.make_server()
        elif chance <= 3:
            for _ in range(3):
                self.call_a_client()
        elif chance <= 6:
            self.serve_clients()
        elif chance <= 8:
            sends = [kept for kept in self.kept if type(kept).__name__ == "Send"]
            if sends:
                self.keep(self.random.choice(sends)(self.message()))
        elif chance == 9:
            receives = [kept for kept in self.kept if type(kept).__name__ == "Receive"]
            if receives:
                awaitable = self.random.choice(receives)()
                self.keep(awaitable)
                getattr(awaitable, self.random.choice(["send", "throw"]))(self.random.choice([None, ValueError]))
        elif chance == 10:
            sends = [kept for kept in self.kept if type(kept).__name__ == "Send"]
            if sends:
                threading.Thread(target=sends[0], args=(self.message(),)).start()
        else:
            super().useful()

    def odd(self):
        """As its base; mostly the server itself, but seldom its end."""
        super().odd()
        if self.random.random() < 0.05:
            gc.collect()

    def maybe(self, *_, **__):
        """Perhaps do something."""
        if self.random.random() < 0.3 and self.depth < 3:
            self.step()


if __name__ == "__main__":
    of_loop.main(lambda: Monkey(int(sys.argv[1])), float(sys.argv[2]))
