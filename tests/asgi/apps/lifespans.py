"""Applications of their own, one a course that a lifespan may take."""

import asyncio
import functools

from .errors import Deliberate
from .routes import VALUES, respond


async def serve_state(scope, receive, send):
    """Answer with the state of the request's scope."""
    await respond(send, repr(scope.get("state")).encode())


async def lifespan_with_state(scope, receive, send):
    """Put values into the state; requests get a shallow copy."""
    if scope["type"] != "lifespan":
        before = repr(scope["state"])
        scope["state"]["mine"] = "must not be seen by the next request"
        scope["state"]["shared"].append(scope["path"])
        await respond(send, before.encode())
        return
    print(f"lifespan scope: {scope!r}", flush=True)
    print(f"lifespan event: {await receive()!r}", flush=True)
    scope["state"]["name"] = "value"
    scope["state"]["shared"] = []
    await send({"type": "lifespan.startup.complete"})
    print(f"lifespan event: {await receive()!r}", flush=True)
    print(f"state at shutdown: {scope['state']!r}", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def lifespan_startup_fails(scope, receive, send):
    """Tell that the startup failed, with a message."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is not there"})


async def lifespan_startup_fails_silently(scope, receive, send):
    """Tell that the startup failed, without a message."""
    await receive()
    await send({"type": "lifespan.startup.failed"})


async def lifespan_startup_hangs(scope, receive, send):
    """Never complete the startup."""
    await receive()
    await asyncio.Event().wait()


async def lifespan_shutdown_hangs(scope, receive, send):
    """Start well, never complete the shutdown."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.Event().wait()


def starts_well(lifespan):
    """An app that answers requests with the state, and goes on like this when the startup is complete."""

    @functools.wraps(lifespan)
    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            await serve_state(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await lifespan(scope, receive, send)

    return app


@starts_well
async def lifespan_shutdown_fails(scope, receive, send):
    """Fail at shutdown."""
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "could not flush"})


async def lifespan_raises(scope, receive, send):
    """Know no lifespan: raise on it, as most small apps do."""
    assert scope["type"] == "http"
    await serve_state(scope, receive, send)


@starts_well
async def lifespan_raises_after_startup(scope, receive, send):
    """Raise when the startup is complete."""
    raise Deliberate("raised after the startup")


@starts_well
async def lifespan_raises_at_shutdown(scope, receive, send):
    """Raise at shutdown."""
    await receive()
    raise Deliberate("raised at shutdown")


async def lifespan_returns(scope, receive, send):
    """Return at once from lifespan."""
    if scope["type"] == "http":
        await serve_state(scope, receive, send)


@starts_well
async def lifespan_returns_after_startup(scope, receive, send):
    """Return from lifespan when the startup is complete."""


async def lifespan_ignored(scope, receive, send):
    """Treat lifespan as if it were a request: send HTTP events on it."""
    await respond(send, b"answered")


async def lifespan_slow(scope, receive, send):
    """Start up over several turns of the loop; a request must not come before that ended."""
    if scope["type"] == "lifespan":
        await receive()
        for _ in range(20):
            await asyncio.sleep(0.005)
        VALUES["started"] = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await respond(send, repr(VALUES.get("started", False)).encode())
