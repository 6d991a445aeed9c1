"""Apps that look at the request, and such that do not."""

import asyncio
import json

from .routes import EVENTS, VALUES, query, read_body, respond, route, start, tell


@route
async def scope(scope, receive, send):
    """Answer with the scope as a Python literal."""
    await respond(send, repr(dict(scope)).encode())


@route
async def text(scope, receive, send):
    """A fixed answer with its length."""
    await respond(send, b"some text", headers=[(b"content-type", b"text/plain")])


@route
async def echo(scope, receive, send):
    """Answer with the body of the request and its number of messages."""
    body = await read_body(receive)
    await respond(send, body)


@route
async def length(scope, receive, send):
    """Answer with the target and how long the request's body was."""
    body = await read_body(receive)
    await respond(send, f"{scope['path']}?{scope['query_string'].decode()} {len(body)}".encode())


@route
async def echo_stream(scope, receive, send):
    """Send each piece of the body back as it comes."""
    await start(send)
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
    await send({"type": "http.response.body"})


@route
async def messages(scope, receive, send):
    """Answer with what receive() gave for the request, joined into one message, and the keys of each."""
    events = [await receive()]
    while events[-1].get("more_body"):
        events.append(await receive())
    await respond(send, repr(events).encode())


@route
async def unread(scope, receive, send):
    """Answer without ever asking for the body."""
    await respond(send, b"did not look")


@route
async def unread_chunked(scope, receive, send):
    """Answer in two pieces without ever asking for the body."""
    await start(send)
    await send({"type": "http.response.body", "body": b"did not ", "more_body": True})
    await send({"type": "http.response.body", "body": b"look"})


@route
async def read_once(scope, receive, send):
    """Read one piece of the body and answer."""
    message = await receive()
    await respond(send, b"read one piece" if message["type"] == "http.request" else message["type"].encode())


@route
async def gate(scope, receive, send):
    """Tell that the request is here, wait for a release, answer."""
    key = query(scope)["key"]
    tell(f"{key}.started")
    try:
        await EVENTS[f"{key}.release"].wait()
    except asyncio.CancelledError:
        print(f"gate {key} cancelled", flush=True)
        raise
    try:
        await respond(send, f"released {key}".encode())
    finally:  # send() raises if the client is gone
        tell(f"{key}.done")


@route
async def sink(scope, receive, send):
    """Take the first piece of the body, wait for a release, then take the rest one turn of the loop at a time."""
    key = query(scope)["key"]
    message = await receive()
    size = VALUES[f"{key}.bytes"] = len(message["body"])
    tell(f"{key}.started", size)
    await EVENTS[f"{key}.release"].wait()
    largest = size
    while message.get("more_body"):
        await asyncio.sleep(0)
        message = await receive()
        largest = max(largest, len(message["body"]))
        size += len(message["body"])
        VALUES[f"{key}.bytes"] = size
    await respond(send, json.dumps({"bytes": size, "largest": largest}).encode())


@route
async def release(scope, receive, send):
    """Read a body, then release whatever waits under the same key: a request in progress that lets another go on."""
    key = query(scope)["key"]
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        tell(f"{key}.reading")
    for name in (f"{key}.release", f"{key}.1"):
        EVENTS[name].set()
    await respond(send, b"released")


@route
async def vandal(scope, receive, send):
    """Take the scope apart: it is this request's own."""
    scope["headers"].clear()
    scope["asgi"].clear()
    scope["state"].clear()
    for extension in scope.get("extensions", {}).values():
        extension["vandal"] = "was here"
    scope.clear()
    await respond(send, b"done")
