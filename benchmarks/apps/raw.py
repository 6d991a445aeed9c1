"""ASGI applications without a framework, one a row of the table, so that the server is all that is measured."""

import asyncio
import random

TEXT = (b"content-type", b"text/plain; charset=utf-8")
BINARY = (b"content-type", b"application/octet-stream")
HELLO = {"type": "http.response.body", "body": b"Hello, world!"}
HELLO_START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"13"), TEXT]}
MEBIBYTE = bytes(1024 * 1024)
PIECE = bytes(16 * 1024)
PIECES = 16


async def hello(scope, receive, send):
    assert scope["type"] == "http"
    await send(HELLO_START)
    await send(HELLO)


async def sleep_zero(scope, receive, send):
    assert scope["type"] == "http"
    await asyncio.sleep(0)
    await send(HELLO_START)
    await send(HELLO)


async def sleep_ten_milliseconds(scope, receive, send):
    assert scope["type"] == "http"
    await asyncio.sleep(0.01)
    await send(HELLO_START)
    await send(HELLO)


async def echo(scope, receive, send):
    assert scope["type"] == "http"
    pieces = []
    more = True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(pieces)
    headers = [(b"content-length", b"%d" % len(body)), BINARY]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def mebibyte(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-length", b"%d" % len(MEBIBYTE)), BINARY]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": MEBIBYTE})


async def streamed(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [BINARY]})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def accepted(scope, receive, send) -> bool:
    """Take a WebSocket; over HTTP, which tells that the server is up, answer instead and return False."""
    if scope["type"] == "http":
        await hello(scope, receive, send)
        return False
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    return True


async def websocket_echo(scope, receive, send):
    assert scope["type"] in ("websocket", "http")
    if not await accepted(scope, receive, send):
        return
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


PEERS = {}
WORDS = [
    f"{prefix}{suffix}" for prefix in ("bo", "ke", "lum", "sta", "wi") for suffix in ("der", "lide", "n", "ry", "s")
]
RANDOM = random.Random(1)


def chat_message(size: int) -> str:
    """Text of `size` characters that is new each time, and about as compressible as what people write."""
    return " ".join(RANDOM.choices(WORDS, k=size // 4))[:size]


async def websocket_broadcast(scope, receive, send):
    """For each message that any peer sends, send one of its size to all."""
    assert scope["type"] in ("websocket", "http")
    if not await accepted(scope, receive, send):
        return
    PEERS[send] = None
    try:
        while (message := await receive())["type"] == "websocket.receive":
            text = chat_message(len(message["bytes"]))
            for peer in list(PEERS):
                await peer({"type": "websocket.send", "text": text})
    finally:
        del PEERS[send]
