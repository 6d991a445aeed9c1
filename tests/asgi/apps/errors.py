"""Apps that raise, or stop short."""

import asyncio

from .routes import query, respond, route, start


class Deliberate(Exception):
    """What the apps below raise."""


@route
async def raise_before(scope, receive, send):
    """Raise before the response starts."""
    raise Deliberate("raised before the start")


@route
async def raise_after_start(scope, receive, send):
    """Raise when the response has started but no body was sent."""
    await start(send, headers=[(b"x-started", b"yes")])
    raise Deliberate("raised after the start")


@route
async def raise_midway(scope, receive, send):
    """Raise in the middle of a chunked body, or of one with a length."""
    headers = [(b"content-length", b"100")] if "length" in query(scope) else []
    await start(send, headers=headers)
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    raise Deliberate("raised midway")


@route
async def raise_after_end(scope, receive, send):
    """Raise when the response is complete."""
    await respond(send, b"complete")
    raise Deliberate("raised after the end")


@route
async def raise_base(scope, receive, send):
    """Raise what is no Exception."""
    raise BaseException("not an Exception")


@route
async def raise_cancelled(scope, receive, send):
    """Raise CancelledError out of one's own will."""
    raise asyncio.CancelledError


@route
async def no_response(scope, receive, send):
    """Return without a response."""


@route
async def no_end(scope, receive, send):
    """Return in the middle of a body."""
    await start(send)
    await send({"type": "http.response.body", "body": b"part", "more_body": True})


@route
async def returns_value(scope, receive, send):
    """Return something, after a proper response."""
    await respond(send, b"complete")
    return "a value"
