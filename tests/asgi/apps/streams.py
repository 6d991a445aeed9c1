"""Apps that stream, and that learn of a client that leaves."""

import asyncio

from .routes import EVENTS, VALUES, query, read_body, respond, route, start, tell


@route
async def flood(scope, receive, send):
    """Send many pieces, keep count of those that send() took; a turn of the loop between any two."""
    wanted = query(scope)
    key, pieces, size = wanted["key"], int(wanted["pieces"]), int(wanted["size"])
    headers = [(b"content-length", str(pieces * size).encode())] if "length" in wanted else []
    await start(send, headers=headers)
    piece = b"x" * size
    for number in range(pieces):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        VALUES[f"{key}.sent"] = number + 1
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})
    tell(f"{key}.done", pieces)


@route
async def drip(scope, receive, send):
    """Send a piece, and each next one when the test releases it: `KEY.N`."""
    wanted = query(scope)
    await start(send)
    for number in range(int(wanted["pieces"])):
        if number:
            await EVENTS[f"{wanted['key']}.{number}"].wait()
        await send({"type": "http.response.body", "body": f"piece {number}".encode(), "more_body": True})
    await send({"type": "http.response.body"})


@route
async def wait_for_disconnect(scope, receive, send):
    """Read the request, then wait for what comes next; `KEY.reading` tells that it waits."""
    key = query(scope)["key"]
    await read_body(receive)
    tell(f"{key}.reading")
    message = await receive()
    again = await receive()
    tell(f"{key}.received", [message, again])


@route
async def upload_cut(scope, receive, send):
    """Read a body that is never complete, tell how it ended."""
    key = query(scope)["key"]
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        size += len(message["body"])
        tell(f"{key}.reading", size)
    tell(f"{key}.ended", [message, size])


@route
async def disconnect_while_streaming(scope, receive, send):
    """Stream until receive() tells that the client left, then send once more and tell what came of it."""
    key = query(scope)["key"]
    await read_body(receive)
    await start(send)
    await send({"type": "http.response.body", "body": b"begin", "more_body": True})
    message = await receive()
    outcome = None
    try:
        await send({"type": "http.response.body", "body": b"nobody reads this", "more_body": True})
    except OSError as exc:
        outcome = "OSError" if isinstance(exc, OSError) else type(exc).__name__
    tell(f"{key}.received", {"message": message, "send": outcome, "spec_version": scope["asgi"]["spec_version"]})


@route
async def disconnect_while_suspended(scope, receive, send):
    """Send until the client, which does not read, leaves: the suspended send() must come back."""
    key = query(scope)["key"]
    await start(send)
    number, outcome = 0, "send did not raise"
    leaving = asyncio.ensure_future(receive_until_disconnect(receive))
    try:
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            number += 1
            VALUES[f"{key}.sent"] = number
            await asyncio.sleep(0)
    except OSError:
        outcome = "OSError"
    await leaving
    tell(f"{key}.ended", {"outcome": outcome, "sent": number})


@route
async def endless_stream(scope, receive, send):
    """Stream until told that the client has gone, and print it."""
    await start(send)
    await send({"type": "http.response.body", "body": b"begin", "more_body": True})
    await receive_until_disconnect(receive)
    print("the stream was told", flush=True)


async def receive_until_disconnect(receive):
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


@route
async def starlette_stream(scope, receive, send):
    """Starlette's StreamingResponse over an endless generator: tell when its `finally` ran."""
    from starlette.responses import StreamingResponse

    key = query(scope)["key"]

    async def pieces():
        number = 0
        try:
            while True:
                number += 1
                yield f"piece {number}\n"
                await asyncio.sleep(0)
        finally:
            tell(f"{key}.generator-ended", number > 0)

    try:
        await StreamingResponse(pieces())(scope, receive, send)
    finally:
        tell(f"{key}.ended")


@route
async def deaf_stream(scope, receive, send):
    """Stream without end, and tell what ended it."""
    await start(send)
    try:
        while True:
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
            await asyncio.sleep(0)
    except OSError:
        tell(query(scope)["key"], "OSError")


@route
async def starlette_wait(scope, receive, send):
    """Starlette's StreamingResponse over a generator that waits for ever, in the middleware: tell what ended it."""
    from starlette.background import BackgroundTask
    from starlette.responses import StreamingResponse

    from bolide.middleware.disconnect import QuietDisconnectMiddleware

    key = query(scope)["key"]

    async def pieces():
        yield b"begin"
        try:
            await asyncio.Event().wait()
        except BaseException as exc:
            tell(f"{key}.generator-ended", type(exc).__name__)
            raise

    after = BackgroundTask(tell, f"{key}.background")
    await QuietDisconnectMiddleware(StreamingResponse(pieces(), background=after))(scope, receive, send)


@route
async def starlette_after(scope, receive, send):
    """A response of Starlette's, begun when the test says so by `KEY.left`, with a background task, in a middleware."""
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    from bolide.middleware.disconnect import QuietDisconnectMiddleware

    wanted = query(scope)
    key, kind = wanted["key"], wanted["kind"]

    async def pieces():
        for _ in range(10):
            yield b"x" * 65536

    async def endpoint(request):
        tell(f"{key}.begun")
        await EVENTS[f"{key}.left"].wait()
        for _ in range(10):
            await asyncio.sleep(0)
        after = BackgroundTask(tell, f"{key}.background")
        if kind in ("file", "range"):
            return FileResponse(bytes.fromhex(wanted["path"]).decode(), background=after)
        if kind == "stream":
            return StreamingResponse(pieces(), background=after)
        return PlainTextResponse("text", background=after)

    async def pass_on(request, call_next):
        return await call_next(request)

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=pass_on)] if kind == "middleware" else []
    routes = [Route("/{path:path}", endpoint)]
    await QuietDisconnectMiddleware(Starlette(routes=routes, middleware=middleware))(scope, receive, send)


@route
async def receive_after_response(scope, receive, send):
    """Answer, then ask for more: the answer is a disconnect at once, though the client is still there."""
    key = query(scope)["key"]
    await respond(send, b"complete")
    tell(key, [await receive(), await receive()])
