"""What every app uses: the table of paths, the events and values shared with a test, whole responses."""

import asyncio
import json
from collections import defaultdict
from urllib.parse import parse_qs, unquote

EVENTS: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
VALUES: dict[str, object] = {}
ROUTES = {}


def route(function):
    """Serve this app under its name, with hyphens for underscores."""
    ROUTES[function.__name__.replace("_", "-")] = function
    return function


async def app(scope, receive, send):
    """Serve each app by the first part of the path."""
    if scope["type"] == "lifespan":
        return await plain_lifespan(scope, receive, send)
    return await ROUTES[scope["path"].split("/")[1]](scope, receive, send)


async def plain_lifespan(scope, receive, send):
    """Answer both events; put something into the state."""
    await receive()
    scope["state"]["opened"] = "at startup"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("the app shuts down", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


def query(scope) -> dict[str, str]:
    """The query parameters."""
    return {
        name: values[-1] for name, values in parse_qs(scope["query_string"].decode(), keep_blank_values=True).items()
    }


def tell(name: str, value: object = None) -> None:
    """Leave a value and set the event of that name."""
    VALUES[name] = value
    EVENTS[name].set()


async def read_body(receive) -> bytes:
    """The whole body; raises EOFError when the client went away."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise EOFError("the client went away")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def start(send, status=200, headers=()):
    """Start a response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def respond(send, body=b"", status=200, headers=()):
    """Send a whole response, with its length."""
    await start(send, status, [(b"content-length", str(len(body)).encode()), *headers])
    await send({"type": "http.response.body", "body": body})


@route
async def control(scope, receive, send):
    """/control/set/NAME, /control/wait/NAME, /control/get/NAME."""
    action, name = scope["path"].split("/", 3)[2:]
    name = unquote(name)
    if action == "set":
        EVENTS[name].set()
    elif action == "wait":
        await EVENTS[name].wait()
    await respond(send, json.dumps(VALUES.get(name), default=repr).encode(), headers=[(b"connection", b"close")])
