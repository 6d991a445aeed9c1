"""Small ASGI apps, one a behaviour: `app` serves each of them under the path of its name.

They talk to a test through named events and values: a test sets `NAME.release` and waits for `NAME.done` over
`/control/...` (see support.server.Control), so that nothing depends on how long something takes.
"""

import asyncio
import contextvars
import gc
import json
import os
import threading
from collections import defaultdict
from urllib.parse import parse_qs, unquote

EVENTS: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
VALUES: dict[str, object] = {}
KEPT_TASKS: set[asyncio.Task] = set()
ROUTES = {}


def route(function):
    """Serve this app under its name, with hyphens for underscores."""
    ROUTES[function.__name__.replace("_", "-")] = function
    return function


async def app(scope, receive, send):
    """Serve all apps of this module by the first part of the path."""
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


# --- control ------------------------------------------------------------------------------------------------


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


# --- requests -----------------------------------------------------------------------------------------------


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


# --- responses ----------------------------------------------------------------------------------------------


@route
async def response(scope, receive, send):
    """Answer as the query says: status, body, length (announced; absent: none), pieces, header=name:value."""
    wanted = query(scope)
    body = wanted.get("body", "").encode()
    headers = []
    if "length" in wanted:
        headers.append((b"content-length", wanted["length"].encode()))
    if "header" in wanted:
        name, _, value = wanted["header"].partition(":")
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    await start(send, int(wanted.get("status", "200")), headers)
    pieces = int(wanted.get("pieces", "1"))
    for number in range(pieces):
        await send({"type": "http.response.body", "body": body, "more_body": number < pieces - 1})


@route
async def large(scope, receive, send):
    """Answer with so many bytes, with their length announced."""
    await respond(send, b"x" * int(query(scope)["size"]))


@route
async def own_chunked(scope, receive, send):
    """Announce chunked oneself, and send plain pieces as the specification wants them."""
    await start(send, headers=[(b"Transfer-Encoding", b"chunked")])
    await send({"type": "http.response.body", "body": b"first,", "more_body": True})
    await send({"type": "http.response.body", "body": b"second", "more_body": False})


@route
async def empty_pieces(scope, receive, send):
    """Send empty pieces between others: none of them may end the body."""
    await start(send)
    for piece in (b"", b"a", b"", b"", b"b", b""):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"c"})


@route
async def bare_final(scope, receive, send):
    """End the body by an event of nothing but its type."""
    await start(send)
    await send({"type": "http.response.body", "body": b"all", "more_body": True})
    await send({"type": "http.response.body"})


@route
async def bare_only(scope, receive, send):
    """A start without headers and a body event of nothing but its type."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


@route
async def header_lists(scope, receive, send):
    """Header pairs as lists, in a tuple."""
    pairs = ([b"X-First", b"1"], [b"x-second", b"2"], [b"Content-Length", b"2"])
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    await send({"type": "http.response.body", "body": b"ok"})


@route
async def header_iterator(scope, receive, send):
    """Headers from a generator, as ASGI's Iterable allows."""
    pairs = ((name, b"v") for name in (b"x-first", b"x-second"))
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    await send({"type": "http.response.body", "body": b"ok"})


@route
async def own_date_and_server(scope, receive, send):
    """Bring one's own Date and Server."""
    own = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"Server", b"own/1.0")]
    await respond(send, b"ok", headers=own)


@route
async def bad_start(scope, receive, send):
    """Start with a header that must not be sent; tell what send() raised, then answer properly."""
    header = query(scope)["header"].partition(":")
    try:
        await start(send, headers=[(header[0].encode("latin-1"), header[2].encode("latin-1"))])
    except Exception as exc:
        tell(query(scope)["key"], type(exc).__name__)
        raise
    await send({"type": "http.response.body", "body": b"it was taken"})
    tell(query(scope)["key"], None)


@route
async def out_of_order(scope, receive, send):
    """Send events in a wrong order, tell what was raised for the last of them."""
    orders = {
        "body-first": ["body"],
        "start-twice": ["start", "start"],
        "after-end": ["start", "end", "end"],
        "start-after-end": ["start", "end", "start"],
        "unknown": ["unknown"],
        "unknown-after-start": ["start", "unknown"],
    }
    events = {
        "start": {"type": "http.response.start", "status": 200, "headers": [(b"x-was", b"started")]},
        "body": {"type": "http.response.body", "body": b"x", "more_body": True},
        "end": {"type": "http.response.body", "body": b"all"},
        "unknown": {"type": "http.response.nonsense"},
    }
    key = query(scope)["key"]
    try:
        for name in orders[query(scope)["order"]]:
            await send(events[name])
    except Exception as exc:
        tell(key, [type(exc).__name__, str(exc)])
        raise
    tell(key, None)


WRONG_MESSAGES = {
    "no mapping": [["http.response.start"]],
    "None": [None],
    "no type": [{"status": 200}],
    "type as bytes": [{"type": b"http.response.start", "status": 200}],
    "type as number": [{"type": 1, "status": 200}],
    "no status": [{"type": "http.response.start"}],
    "status as text": [{"type": "http.response.start", "status": "200"}],
    "status None": [{"type": "http.response.start", "status": None}],
    "status 99": [{"type": "http.response.start", "status": 99}],
    "status -1": [{"type": "http.response.start", "status": -1}],
    "status 1000": [{"type": "http.response.start", "status": 1000}],
    "status 2**70": [{"type": "http.response.start", "status": 2**70}],
    "headers a number": [{"type": "http.response.start", "status": 200, "headers": 1}],
    "header a number": [{"type": "http.response.start", "status": 200, "headers": [1]}],
    "header of one": [{"type": "http.response.start", "status": 200, "headers": [(b"x-a",)]}],
    "header of three": [{"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b", b"c")]}],
    "header name as text": [{"type": "http.response.start", "status": 200, "headers": [("x-a", b"b")]}],
    "header value as text": [{"type": "http.response.start", "status": 200, "headers": [(b"x-a", "b")]}],
    "header value None": [{"type": "http.response.start", "status": 200, "headers": [(b"x-a", None)]}],
    "length no number": [{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"two")]}],
    "body as text": [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "text"}],
    "body a number": [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": 5}],
}


@route
async def wrong_message(scope, receive, send):
    """Send what is no proper event, tell what was raised."""
    key = query(scope)["key"]
    try:
        for message in WRONG_MESSAGES[query(scope)["message"]]:
            await send(message)
    except Exception as exc:
        tell(key, type(exc).__name__)
        raise
    tell(key, None)


@route
async def bytes_like(scope, receive, send):
    """A body of each kind of bytes, and a message with keys that nobody knows."""

    class OwnBytes(bytes):
        pass

    pieces = [bytearray(b"array,"), memoryview(b"a view,"), memoryview(b"-p-a-r-t-")[1::2], OwnBytes(b",own")]
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(OwnBytes(b"x-own"), OwnBytes(b"1"))], "?": 1}
    )
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True, "?": 1})
    mutable = bytearray(b",kept")
    await send({"type": "http.response.body", "body": mutable, "more_body": True})
    mutable[:] = b",lost"
    await send({"type": "http.response.body"})


@route
async def vandal(scope, receive, send):
    """Take the scope apart: it is this request's own."""
    scope["headers"].clear()
    scope["asgi"].clear()
    scope["state"].clear()
    scope.clear()
    await respond(send, b"done")


@route
async def child_task(scope, receive, send):
    """Receive and send in other tasks than the request's own."""

    async def answer():
        body = await asyncio.create_task(read_body(receive))
        await respond(send, body)

    await asyncio.create_task(answer())


@route
async def impatient_receive(scope, receive, send):
    """Give up waiting for the body again and again: what arrives must not be lost with the wait."""
    key = query(scope)["key"]
    parts, gave_up, more = [], 0, True
    while more:
        try:
            async with asyncio.timeout(0.001):
                message = await receive()
        except TimeoutError:
            gave_up += 1
            if gave_up == 3:
                tell(f"{key}.gave-up", gave_up)
            continue
        parts.append(message["body"])
        more = message["more_body"]
    await respond(send, b"".join(parts))


@route
async def impatient_send(scope, receive, send):
    """Give up waiting in send() as often as it takes: the response stays well-formed and goes on."""
    key = query(scope)["key"]
    await start(send)
    gave_up = number = 0
    while gave_up < 3:
        try:
            async with asyncio.timeout(0.01):
                await send({"type": "http.response.body", "body": b"%9d\n" % number * 6000, "more_body": True})
        except TimeoutError:
            gave_up += 1
        number += 1
    tell(f"{key}.gave-up", number)
    await send({"type": "http.response.body", "body": b"      end\n"})


KEPT_FUNCTIONS = []


@route
async def keep_functions(scope, receive, send):
    """Answer, and keep receive and send for later."""
    KEPT_FUNCTIONS.append((receive, send))
    await respond(send, b"kept")


@route
async def use_kept_functions(scope, receive, send):
    """Use what other requests left, long after their end: tell what that gave."""
    told = []
    for old_receive, old_send in KEPT_FUNCTIONS:
        for call in (
            old_receive,
            lambda: old_send({"type": "http.response.body", "body": b"stray"}),  # noqa: B023
            lambda: old_send({"type": "http.response.start", "status": 200}),  # noqa: B023
        ):
            try:
                told.append(await call())
            except (OSError, RuntimeError) as exc:
                told.append(type(exc).__name__)
    KEPT_FUNCTIONS.clear()
    await respond(send, json.dumps(told).encode())


@route
async def overlapping_receives(scope, receive, send):
    """Two tasks wait in receive() at once, as frameworks' disconnect listeners do."""
    key = query(scope)["key"]
    first, second = asyncio.ensure_future(receive()), asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    tell(f"{key}.waiting")
    results = await asyncio.gather(first, second, return_exceptions=True)
    bodies = [result["body"] for result in results if isinstance(result, dict) and result.get("body")]
    more = all(result.get("more_body", True) for result in results if isinstance(result, dict))
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        bodies.append(message["body"])
        more = message["more_body"]
    await respond(send, b"".join(bodies))


# --- streaming and disconnects ------------------------------------------------------------------------------


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
async def receive_after_response(scope, receive, send):
    """Answer, then ask for more: the answer is a disconnect at once, though the client is still there."""
    key = query(scope)["key"]
    await respond(send, b"complete")
    tell(key, [await receive(), await receive()])


# --- errors -------------------------------------------------------------------------------------------------


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


# --- tasks --------------------------------------------------------------------------------------------------


@route
async def background(scope, receive, send):
    """Answer, then go on until released: Starlette runs its background tasks like this."""
    key = query(scope)["key"]
    await respond(send, b"answered")
    tell(f"{key}.working")
    await EVENTS[f"{key}.release"].wait()
    print(f"background {key} finished", flush=True)
    tell(f"{key}.done", "finished")


@route
async def starlette_background(scope, receive, send):
    """Starlette's own BackgroundTask behind a response of so many bytes."""
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse

    key = query(scope)["key"]

    async def work():
        tell(f"{key}.working")
        await EVENTS[f"{key}.release"].wait()
        tell(f"{key}.done", "finished")

    body = "x" * int(query(scope).get("size", "8"))
    await PlainTextResponse(body, background=BackgroundTask(work))(scope, receive, send)


@route
async def leave_task(scope, receive, send):
    """Start a task that never ends, and answer."""
    KEPT_TASKS.add(asyncio.create_task(asyncio.Event().wait(), name="runs for ever"))
    await respond(send, b"left one")


@route
async def task_facts(scope, receive, send):
    """Tell what asyncio knows about the task that runs the request, before the first await and after it."""

    def facts():
        task = asyncio.current_task()
        return {
            "is_task": type(task) is asyncio.Task,
            "listed": task in asyncio.all_tasks(),
            "name": isinstance(task.get_name(), str),
            "done": task.done(),
            "cancelling": task.cancelling(),
            "loop": task.get_loop() is asyncio.get_running_loop(),
            "coroutine": asyncio.iscoroutine(task.get_coro()),
        }

    before = facts()
    await asyncio.sleep(0)
    await respond(send, json.dumps({"before": before, "after": facts()}).encode())


@route
async def task_group(scope, receive, send):
    """A TaskGroup as the very first thing."""
    async with asyncio.TaskGroup() as group:
        results = [group.create_task(asyncio.sleep(0, number)) for number in range(5)]
    await respond(send, repr([task.result() for task in results]).encode())


@route
async def task_group_failure(scope, receive, send):
    """A TaskGroup of which one fails and cancels the others."""
    cancelled = []

    async def wait_for_ever():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async def fail():
        raise Deliberate("in a group")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_ever())
            group.create_task(fail())
    except* Deliberate as caught:
        await respond(send, json.dumps({"caught": len(caught.exceptions), "cancelled": len(cancelled)}).encode())


@route
async def timeout(scope, receive, send):
    """asyncio.timeout as the very first thing, around a wait without end."""
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        await respond(send, b"timed out")


@route
async def cancel_self(scope, receive, send):
    """Cancel one's own task before the first await, catch that, answer."""
    task = asyncio.current_task()
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        task.uncancel()
        await respond(send, b"caught it")


@route
async def anyio_facts(scope, receive, send):
    """anyio: cancel scopes, task groups, threads, its own idea of the current task."""
    import anyio
    import anyio.to_thread

    done = []
    with anyio.move_on_after(0.001) as cancel_scope:
        await anyio.sleep_forever()
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(note, done, number)
    thread = await anyio.to_thread.run_sync(threading.get_ident)
    facts = {
        "cancelled": cancel_scope.cancelled_caught,
        "done": sorted(done),
        "thread": thread != threading.get_ident(),
        "task": anyio.get_current_task().id == id(asyncio.current_task()),
    }
    await respond(send, json.dumps(facts).encode())


async def note(done, number):
    """Append a number after a turn of the loop."""
    await asyncio.sleep(0)
    done.append(number)


REQUEST_NUMBER = contextvars.ContextVar("REQUEST_NUMBER", default="unset")


@route
async def context(scope, receive, send):
    """Tell what the context variable was, then set it: requests must not see one another's."""
    before = REQUEST_NUMBER.get()
    REQUEST_NUMBER.set(scope["query_string"].decode())
    await asyncio.sleep(0)
    await respond(send, f"{before} {REQUEST_NUMBER.get()}".encode())


@route
async def rendezvous(scope, receive, send):
    """Answer when so many requests are here at once."""
    key, count = query(scope)["key"], int(query(scope)["count"])
    VALUES[f"{key}.here"] = VALUES.get(f"{key}.here", 0) + 1
    if VALUES[f"{key}.here"] == count:
        EVENTS[f"{key}.all"].set()
    await EVENTS[f"{key}.all"].wait()
    await asyncio.sleep(0.01)
    await respond(send, str(VALUES[f"{key}.here"]).encode())


@route
async def executor(scope, receive, send):
    """Run something in the default executor."""
    ident = await asyncio.get_running_loop().run_in_executor(None, threading.get_ident)
    await respond(send, b"another thread" if ident != threading.get_ident() else b"the same thread")


@route
async def loop_name(scope, receive, send):
    """Tell which loop this runs on."""
    loop = type(asyncio.get_running_loop())
    await respond(send, f"{loop.__module__}.{loop.__qualname__}".encode())


@route
async def collect_garbage(scope, receive, send):
    """Collect it, so that the memory of the process tells what is in use."""
    gc.collect()
    await respond(send)


@route
async def process_id(scope, receive, send):
    """Tell the process id."""
    await respond(send, str(os.getpid()).encode())


# --- lifespans: each an app of its own ----------------------------------------------------------------------


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


async def lifespan_shutdown_fails(scope, receive, send):
    """Start well, fail at shutdown."""
    if scope["type"] != "lifespan":
        await serve_state(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "could not flush"})


async def lifespan_raises(scope, receive, send):
    """Know no lifespan: raise on it, as most small apps do."""
    assert scope["type"] == "http"
    await serve_state(scope, receive, send)


async def lifespan_raises_after_startup(scope, receive, send):
    """Raise when the startup is complete."""
    if scope["type"] != "lifespan":
        await serve_state(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise Deliberate("raised after the startup")


async def lifespan_raises_at_shutdown(scope, receive, send):
    """Raise at shutdown."""
    if scope["type"] != "lifespan":
        await serve_state(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise Deliberate("raised at shutdown")


async def lifespan_returns(scope, receive, send):
    """Return at once from lifespan."""
    if scope["type"] == "http":
        await serve_state(scope, receive, send)


async def lifespan_returns_after_startup(scope, receive, send):
    """Return from lifespan when the startup is complete."""
    if scope["type"] == "http":
        await serve_state(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})


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


def make_app():
    """A factory."""
    return app


def make_app_with_argument(argument):
    """Not a factory: it wants an argument."""
    return app


class ClassApp:
    """An app as an instance with an async __call__."""

    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)


class_app = ClassApp()


class Namespace:
    """For an import string with a dotted attribute."""

    inner = class_app


not_callable = 5


# --- extensions of responses --------------------------------------------------------------------------------


@route
async def early_hint(scope, receive, send):
    """Hint at so many links, and answer."""
    wanted = query(scope)
    links = [b"</%d.css>; rel=preload" % number for number in range(int(wanted["links"]))]
    for _ in range(int(wanted.get("times", "1"))):
        await send({"type": "http.response.early_hint", "links": links})
    await respond(send, b"final")


@route
async def wrong_early_hint(scope, receive, send):
    """Send a hint that is wrong, tell what it raised, and answer."""
    wanted = query(scope)
    wrong = {"none": None, "text": ["</a>"], "split": [b"</a>\r\nx: y"], "late": [b"</a>"], "number": 1}[
        wanted["wrong"]
    ]
    raised = "nothing"
    if wanted["wrong"] == "late":
        await start(send, headers=[(b"content-length", b"5")])
    try:
        event = {"type": "http.response.early_hint"} | ({"links": wrong} if wrong else {})
        await send(event)
    except Exception as exc:
        raised = type(exc).__name__
    tell(wanted["key"], raised)
    if wanted["wrong"] == "late":
        await send({"type": "http.response.body", "body": b"final"})
    else:
        await respond(send, b"final")


@route
async def trailers(scope, receive, send):
    """Answer with trailers in so many events."""
    wanted = query(scope)
    headers = [(b"content-length", wanted["length"].encode())] if "length" in wanted else []
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": b"a ", "more_body": True})
    await send({"type": "http.response.body", "body": b"body"})
    events = int(wanted["events"])
    for number in range(events):
        fields = [] if "empty" in wanted else [(b"X-%d" % number, b"%d" % number)]
        await send({"type": "http.response.trailers", "headers": fields, "more_trailers": number < events - 1})


@route
async def wrong_trailers(scope, receive, send):
    """Send trailers that are wrong and tell what they raised."""
    wanted = query(scope)
    wrong = wanted["wrong"]
    announced = {} if wrong == "unannounced" else {"trailers": True}
    await send({"type": "http.response.start", "status": 200, "headers": [], **announced})
    await send({"type": "http.response.body", "body": b"a body"})
    fields = {"split": [(b"x", b"a\r\nb: c")], "text": [("x", "y")], "triple": [(b"x", b"y", b"z")]}
    raised = "nothing"
    try:
        if wrong == "body":
            await send({"type": "http.response.body", "body": b"more"})
        elif wrong != "never":
            await send({"type": "http.response.trailers", "headers": fields.get(wrong, [(wrong.encode(), b"1")])})
    except Exception as exc:
        raised = type(exc).__name__
    tell(wanted["key"], raised)


@route
async def pathsend(scope, receive, send):
    """Answer with a file, or with a path that is wrong."""
    wanted = query(scope)
    folder = path = bytes.fromhex(wanted["path"]).decode()
    path = {
        "missing": folder + "/missing",
        "folder": folder,
        "socket": folder + "/socket",
        "bytes": os.fsencode(folder),
        "nul": folder + "\0",
    }.get(wanted.get("wrong"), path)
    headers = [(b"content-length", b"%d" % os.path.getsize(path))] if "length" in wanted else []
    trailing = {"trailers": True} if "trailers" in wanted else {}
    await send({"type": "http.response.start", "status": 200, "headers": headers, **trailing})
    try:
        await send({"type": "http.response.pathsend", "path": path})
    except Exception as exc:
        tell(wanted["key"], type(exc).__name__)
    if trailing:
        await send({"type": "http.response.trailers", "headers": [(b"x-a", b"b")]})


@route
async def zerocopysend(scope, receive, send):
    """Answer with parts of a file and other pieces, as the JSON of `plan` has them, each with what it has besides.

    `as` says what stands for the file: an "object" that has read its first byte, an "unread" one, a "number", or
    something wrong. Tells what was raised, or where the file stands in the end.
    """
    wanted = query(scope)
    path = bytes.fromhex(wanted["path"]).decode()
    headers = [(b"content-length", wanted["length"].encode())] if "length" in wanted else []
    trailing = {"trailers": True} if "trailers" in wanted else {}
    await send(
        {"type": "http.response.start", "status": int(wanted.get("status", "200")), "headers": headers, **trailing}
    )
    told = None
    with open(path, "rb") as file, open(os.devnull, "rb") as null:
        if wanted["as"] == "object":
            file.read(1)
        given = {"number": file.fileno(), "text": path, "none": None, "closed": 1 << 20, "device": null}
        try:
            for item in json.loads(wanted["plan"]):
                if "body" in item:
                    await send({"type": "http.response.body", **item, "body": item["body"].encode()})
                else:
                    await send({"type": "http.response.zerocopysend", "file": given.get(wanted["as"], file), **item})
            if trailing:
                await send({"type": "http.response.trailers", "headers": [(b"x-a", b"b")]})
            told = file.tell() if wanted["as"] in ("object", "unread") else os.lseek(file.fileno(), 0, os.SEEK_CUR)
        except Exception as exc:
            told = type(exc).__name__
            raise
        finally:
            if "key" in wanted:
                tell(wanted["key"], told)


@route
async def starlette_file(scope, receive, send):
    """Starlette's FileResponse, which uses pathsend where it can."""
    from starlette.responses import FileResponse

    await FileResponse(bytes.fromhex(query(scope)["path"]).decode())(scope, receive, send)


@route
async def awaited_by_hand(scope, receive, send):
    """Drive receive() as no program should, and say what that gives."""
    told = []

    def attempt(call, *arguments) -> None:
        try:
            told.append(asyncio.isfuture(call(*arguments)))
        except (RuntimeError, TypeError, asyncio.CancelledError) as exc:
            told.append(type(exc).__name__)

    for arguments in ((None,), (asyncio.current_task(),), (1, 2)):
        attempt(receive, *arguments)
    await read_body(receive)
    waiting = receive()
    for _ in range(3):
        attempt(waiting.send, None)
    waiting = receive()
    waiting.send(None).cancel()
    attempt(waiting.send, None)
    waiting = receive()
    first = waiting.send(None)
    first.set_result(None)
    told.append(waiting.send(None) is first)
    waiting.close()
    await respond(send, json.dumps(told).encode())
