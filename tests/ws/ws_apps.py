"""Small ASGI apps for WebSocket, one a behaviour, served with those of tests/asgi/apps under their names."""

import asyncio
import contextlib
import sys
from itertools import repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "asgi"))

from apps import app  # noqa: F401
from apps.routes import EVENTS, query, route, tell


async def accept(receive, send, **fields):
    """Take websocket.connect and accept."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **fields})


def describe(exc: BaseException) -> list:
    """An exception for a test to see."""
    return [type(exc).__name__, str(exc), isinstance(exc, OSError)]


@route
async def ws_echo(scope, receive, send):
    """Send every message back; tell the disconnect message under ?key."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    if key := query(scope).get("key"):
        tell(key, message)


@route
async def ws_scope(scope, receive, send):
    """Send the scope as a Python literal."""
    await accept(receive, send)
    await send({"type": "websocket.send", "text": repr(scope)})
    await receive()


@route
async def ws_add_keys(scope, receive, send):
    """Add ?count keys to the scope before the handshake is complete, and say what it has then."""
    count = int(query(scope)["count"])
    scope.update((f"key {number}", number) for number in range(count))
    await accept(receive, send)
    await send({"type": "websocket.send", "text": repr(list(scope.items())[-count - 1 :])})
    await receive()


WAITING = set()


@route
async def ws_cancelled(scope, receive, send):
    """Say when the wait for a message was cancelled, and wait again."""
    await accept(receive, send)
    WAITING.add(asyncio.current_task())
    try:
        while True:
            try:
                if (await receive())["type"] != "websocket.receive":
                    break
                await send({"type": "websocket.send", "text": "received"})
            except asyncio.CancelledError as exc:
                asyncio.current_task().uncancel()
                await send({"type": "websocket.send", "text": f"cancelled {exc}"})
    finally:
        WAITING.discard(asyncio.current_task())


@route
async def cancel_waiting(scope, receive, send):
    """Cancel what waits in ws_cancelled."""
    for task in WAITING:
        task.cancel("by name")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@route
async def ws_accept(scope, receive, send):
    """Accept with a subprotocol and fields."""
    fields = {}
    if subprotocol := query(scope).get("subprotocol"):
        fields["subprotocol"] = subprotocol
    headers = [
        (b"X-One", b"1"),
        (b"x-two", b"2"),
        [b"Set-Cookie", b"a=b"],
        (b"connection", b"close"),
        (b"upgrade", b"x"),
    ]
    await accept(receive, send, headers=headers, **fields)
    await receive()


@route
async def ws_accept_first(scope, receive, send):
    """Accept without having received websocket.connect, then say what comes."""
    await send({"type": "websocket.accept"})
    for _ in range(2):
        await send({"type": "websocket.send", "text": repr(await receive())})
    await receive()


@route
async def ws_called_elsewhere(scope, receive, send):
    """Echo until the client leaves, from a thread, which calls receive() and send() and has the loop await them."""
    loop = asyncio.get_running_loop()

    def run(awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, loop).result()

    def work():
        run(receive())
        run(send({"type": "websocket.accept"}))
        while (message := run(receive()))["type"] == "websocket.receive":
            run(send({"type": "websocket.send", "bytes": message["bytes"]}))

    await asyncio.to_thread(work)


@route
async def ws_refuse(scope, receive, send):
    """Close before accepting."""
    await receive()
    await send({"type": "websocket.close"})
    tell(query(scope)["key"], await receive())


@route
async def ws_deny(scope, receive, send):
    """Deny with a response in ?pieces pieces."""
    await receive()
    await send({"type": "websocket.http.response.start", "status": 451, "headers": [(b"x-why", b"law")]})
    pieces = int(query(scope)["pieces"])
    for number in range(pieces):
        body = {"body": b"piece %d;" % number, "more_body": number < pieces - 1}
        await send({"type": "websocket.http.response.body", **body})
    tell(query(scope)["key"], await receive())


@route
async def ws_deny_start_only(scope, receive, send):
    """Deny, but never send the body."""
    await receive()
    headers = [(b"content-length", b"0")]
    await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})


@route
async def ws_raise(scope, receive, send):
    """Raise before accepting, or with ?accepted after it."""
    if "accepted" in query(scope):
        await accept(receive, send)
    raise ValueError("deliberate")


@route
async def ws_return(scope, receive, send):
    """Return before accepting, or with ?accepted after it."""
    if "accepted" in query(scope):
        await accept(receive, send)


@route
async def ws_return_value(scope, receive, send):
    """Return something."""
    await accept(receive, send)
    return 123


@route
async def ws_close(scope, receive, send):
    """Close with ?code and ?reason, then tell what comes."""
    await accept(receive, send)
    message = {"type": "websocket.close"}
    fields = query(scope)
    if "code" in fields:
        message["code"] = int(fields["code"])
    if "reason" in fields:
        message["reason"] = fields["reason"]
    try:
        await send(message)
        outcome = await receive()
    except Exception as exc:
        outcome = describe(exc)
    tell(fields["key"], outcome)
    if isinstance(outcome, list):
        await receive()


MISUSES = {
    "send-first": [{"type": "websocket.send", "text": "x"}],
    "http-first": [{"type": "http.response.start", "status": 200}],
    "body-first": [{"type": "websocket.http.response.body", "body": b""}],
    "no-type": [{"text": "x"}],
    "bad-status": [{"type": "websocket.http.response.start", "status": 700, "headers": []}],
    "two-starts": [{"type": "websocket.http.response.start", "status": 404, "headers": []}] * 2,
    "bad-header": [{"type": "websocket.accept", "headers": [(b"a b", b"c")]}],
    "bad-header-value": [{"type": "websocket.accept", "headers": [(b"a", b"b\r\nc: d")]}],
    "str-header": [{"type": "websocket.accept", "headers": [("a", "b")]}],
    "bad-subprotocol": [{"type": "websocket.accept", "subprotocol": "a b"}],
    "bytes-subprotocol": [{"type": "websocket.accept", "subprotocol": b"a"}],
    "two-accepts": [{"type": "websocket.accept"}] * 2,
    "start-after-accept": [
        {"type": "websocket.accept"},
        {"type": "websocket.http.response.start", "status": 200, "headers": []},
    ],
    "text-bytes": [{"type": "websocket.accept"}, {"type": "websocket.send", "text": b"x"}],
    "bytes-text": [{"type": "websocket.accept"}, {"type": "websocket.send", "bytes": "x"}],
    "nothing": [{"type": "websocket.accept"}, {"type": "websocket.send"}],
    "nones": [{"type": "websocket.accept"}, {"type": "websocket.send", "bytes": None, "text": None}],
    "surrogate": [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "\ud800"}],
    "number": [{"type": "websocket.accept"}, {"type": "websocket.send", "bytes": 3}],
    "bad-code": [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1006}],
    "huge-code": [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1 << 80}],
    "str-code": [{"type": "websocket.accept"}, {"type": "websocket.close", "code": "1000"}],
    "long-reason": [{"type": "websocket.accept"}, {"type": "websocket.close", "reason": "é" * 62}],
    "bytes-reason": [{"type": "websocket.accept"}, {"type": "websocket.close", "reason": b"x"}],
    "send-after-close": [
        {"type": "websocket.accept"},
        {"type": "websocket.close"},
        {"type": "websocket.send", "text": "x"},
    ],
    "close-twice": [{"type": "websocket.accept"}, {"type": "websocket.close"}, {"type": "websocket.close"}],
    "accept-after-refusal": [{"type": "websocket.close"}, {"type": "websocket.accept"}],
}


@route
async def ws_misuse(scope, receive, send):
    """Send the messages of ?case and tell what the last one raised."""
    await receive()
    fields = query(scope)
    *before, last = MISUSES[fields["case"]]
    for message in before:
        await send(message)
    try:
        await send(last)
    except Exception as exc:
        tell(fields["key"], describe(exc))
        raise
    tell(fields["key"], "nothing raised")


@route
async def ws_wait(scope, receive, send):
    """Wait for KEY.accept before accepting; then tell what receive() gives."""
    key = query(scope)["key"]
    assert (await receive())["type"] == "websocket.connect"
    tell(f"{key}.connected")
    await EVENTS[f"{key}.accept"].wait()
    try:
        await send({"type": "websocket.accept"})
        tell(f"{key}.outcome", await receive())
    except Exception as exc:
        tell(f"{key}.outcome", [describe(exc), await receive()])


@route
async def ws_receive_before_accept(scope, receive, send):
    """Wait for more than websocket.connect without accepting."""
    key = query(scope)["key"]
    await receive()
    tell(f"{key}.connected")
    tell(f"{key}.outcome", await receive())
    try:
        await send({"type": "websocket.accept"})
    except Exception as exc:
        tell(f"{key}.send", describe(exc))


@route
async def ws_send_after_disconnect(scope, receive, send):
    """Receive until the end, then send."""
    key = query(scope)["key"]
    await accept(receive, send)
    messages = [await receive()]
    while messages[-1]["type"] != "websocket.disconnect":
        messages.append(await receive())
    messages.append(await receive())
    try:
        await send({"type": "websocket.send", "text": "late"})
        tell(key, "nothing raised")
    except Exception as exc:
        tell(key, [describe(exc), messages])


@route
async def ws_flood(scope, receive, send):
    """Send ?count messages of ?size bytes; tell how many went before the peer read, and the exception."""
    fields = query(scope)
    await accept(receive, send)
    data = bytes(int(fields["size"]))
    sent = 0
    try:
        for sent in range(int(fields["count"])):
            sending = asyncio.ensure_future(one(send, data))
            done, _ = await asyncio.wait([sending], timeout=0.3 if "key" in fields else None)
            if not done:
                tell(f"{fields['key']}.stuck", sent)
            await sending
    except Exception as exc:
        tell(f"{fields['key']}.raised", describe(exc))
        return
    await receive()


async def one(send, data):
    """A message as a coroutine, for a task."""
    await send({"type": "websocket.send", "bytes": data})


@route
async def ws_slow_reader(scope, receive, send):
    """Accept, wait for KEY.go, then count bytes until the end."""
    key = query(scope)["key"]
    await accept(receive, send)
    await EVENTS[f"{key}.go"].wait()
    total = count = 0
    while (message := await receive())["type"] == "websocket.receive":
        total += len(message["bytes"])
        count += 1
    tell(f"{key}.done", [count, total])


@route
async def ws_buffers(scope, receive, send):
    """Send other objects with a buffer."""
    await accept(receive, send)
    for data in (bytearray(b"array"), memoryview(b"view"), b""):
        await send({"type": "websocket.send", "bytes": data})
    await send({"type": "websocket.send", "bytes": None, "text": ""})
    await send({"type": "websocket.send", "bytes": b"first", "text": "second"})
    await receive()


@route
async def ws_two_receivers(scope, receive, send):
    """Two tasks receive, one sends."""
    await accept(receive, send)

    async def worker(name):
        message = await receive()
        await send({"type": "websocket.send", "text": f"{name} {message['text']}"})

    async with asyncio.TaskGroup() as group:
        group.create_task(worker("a"))
        group.create_task(worker("b"))
    await receive()


@route
async def ws_cancelled_receive(scope, receive, send):
    """Cancel a receive() that waits; no message is lost."""
    await accept(receive, send)
    for _ in range(3):
        try:
            async with asyncio.timeout(0.01):
                await receive()
        except TimeoutError:
            await send({"type": "websocket.send", "text": "timeout"})
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"]})
    await receive()


@route
async def ws_shutdown(scope, receive, send):
    """Accept, and say at the end what came."""
    await accept(receive, send)
    await send({"type": "websocket.send", "text": "ready"})
    print("ended with", await receive(), flush=True)


@route
async def ws_never_accepts(scope, receive, send):
    """Wait for the end without an answer."""
    await receive()
    print("waits", flush=True)
    print("ended with", await receive(), flush=True)


PEERS = []


@contextlib.asynccontextmanager
async def joined(receive, send):
    """Accept, and be one of PEERS."""
    await accept(receive, send)
    PEERS.append(send)
    try:
        await send({"type": "websocket.send", "text": "joined"})
        yield
    finally:
        PEERS.remove(send)


async def send_to_all(messages) -> None:
    """Send each peer that is still there the next of `messages`."""
    for peer, message in zip(PEERS, messages, strict=False):
        with contextlib.suppress(OSError):
            await peer(message)


@route
async def ws_broadcast(scope, receive, send):
    """Send each message to all, the very same object."""
    async with joined(receive, send):
        while (message := await receive())["type"] == "websocket.receive":
            await send_to_all(repeat({**message, "type": "websocket.send"}))


@route
async def ws_broadcast_copies(scope, receive, send):
    """Send each message to all, 20 times in one step: every other time an equal object made anew for each."""
    async with joined(receive, send):
        while (message := await receive())["type"] == "websocket.receive":
            key = "text" if "text" in message else "bytes"
            same = {"type": "websocket.send", key: message[key]}
            for number in range(20):
                await send_to_all((anew(same, key) for _ in repeat(None)) if number % 2 else repeat(same))


def anew(message, key):
    """An equal message whose payload is another object."""
    payload = message[key]
    return {**message, key: "".join(payload) if key == "text" else bytes(bytearray(payload))}


@route
async def ws_spoil_scope(scope, receive, send):
    """Say what the scope has, once it was changed in every way that an application should not."""
    before = repr({key: value for key, value in scope.items() if key not in ("client", "headers")})
    for name in ("asgi", "extensions", "state"):
        scope[name].clear()
        scope[name].update({f"{name} {number}": number for number in range(40)})
    scope["subprotocols"].append("spoiled")
    del scope["path"]
    scope.update({f"key {number}": number for number in range(40)})
    await accept(receive, send)
    await send({"type": "websocket.send", "text": before})
    assert list(scope)[-1] == "key 39" and "path" not in scope
    assert scope["key 7"] == 7 and scope["asgi"]["asgi 39"] == 39 and scope["type"] == "websocket"
    await receive()
