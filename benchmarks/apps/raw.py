"""ASGI applications without a framework, one a row of the table, so that the server is all that is measured."""

import asyncio

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


async def websocket_echo(scope, receive, send):
    assert scope["type"] in ("websocket", "http")
    if scope["type"] == "http":
        await hello(scope, receive, send)
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})
