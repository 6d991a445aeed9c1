"""Apps that call receive and send in unusual ways: in other tasks, at once, late, given up, by hand."""

import asyncio
import json

from .routes import query, read_body, respond, route, start, tell


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
    told.append(waiting.send(None) is waiting)
    waiting.close()
    attempt(waiting.send, None)
    await respond(send, json.dumps(told).encode())
