"""An application that holds what the server gives it against the types of asgiref, and answers with what does not fit.

Every value is looked at as deeply as its type goes: missing and unknown keys, the types of what lists and tuples have.
Events on their way to the server are looked at too, so that the application itself keeps to them.
"""

import json
import types
import typing

import asgiref.typing as asgi

SCOPES = {"http": asgi.HTTPScope, "websocket": asgi.WebSocketScope, "lifespan": asgi.LifespanScope}
EVENTS = {
    typing.get_args(typing.get_type_hints(event)["type"])[0]: event
    for event in (*typing.get_args(asgi.ASGIReceiveEvent), *typing.get_args(asgi.ASGISendEvent))
}
# What the specification lets an event leave out, which asgiref's types do not say.
OPTIONAL = {"websocket.receive": {"bytes", "text"}}
seen = {"lifespan": []}


def faults(value, wanted, where: str) -> list[str]:
    """What of `value` is not as the type `wanted` says."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is typing.Any or wanted is object:
        return []
    if typing.is_typeddict(wanted):
        return dict_faults(value, wanted, where)
    if origin is typing.NotRequired:
        return faults(value, arguments[0], where)
    if origin is typing.Literal:
        return [] if value in arguments else [f"{where} is {value!r}"]
    if origin in (typing.Union, types.UnionType):
        found = [faults(value, argument, where) for argument in arguments]
        return min(found, key=len)
    if origin is tuple:
        if type(value) is not tuple or len(value) != len(arguments):
            return [f"{where} is {value!r}"]
        return [
            fault for item, argument in zip(value, arguments, strict=True) for fault in faults(item, argument, where)
        ]
    if origin is dict:
        if type(value) is not dict:
            return [f"{where} is {value!r}"]
        return [
            fault
            for key, item in value.items()
            for fault in (*faults(key, arguments[0], where), *faults(item, arguments[1], f"{where}[{key!r}]"))
        ]
    if origin is not None:  # Iterable
        return [fault for item in value for fault in faults(item, arguments[0], where)]
    return [] if type(value) is (type(None) if wanted is None else wanted) else [f"{where} is {value!r}"]


def dict_faults(value, wanted, where: str) -> list[str]:
    """The same for a TypedDict."""
    if type(value) is not dict:
        return [f"{where} is no dict"]
    hints = typing.get_type_hints(wanted, include_extras=True)
    optional = OPTIONAL.get(value.get("type"), set())
    found = [f"{where} lacks {key}" for key in wanted.__required_keys__ - value.keys() - optional]
    found += [f"{where} has {key}, too" for key in value.keys() - hints.keys()]
    for key in hints.keys() & value.keys():
        found += faults(value[key], hints[key], f"{where}[{key!r}]")
    return found


async def app(scope, receive, send):
    """See the module."""
    found = faults(scope, SCOPES[scope["type"]], "scope")

    async def checked_receive():
        event = await receive()
        found.extend(faults(event, EVENTS[event["type"]], event["type"]))
        return event

    async def checked_send(event):
        found.extend(faults(event, EVENTS[event["type"]], event["type"]))
        await send(event)

    await {"http": answer, "websocket": converse, "lifespan": live}[scope["type"]](
        scope, checked_receive, checked_send, found
    )


async def live(scope, receive, send, found):
    """The lifespan: what it has found, requests tell."""
    seen["lifespan"] = found
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    print("found at the end:", found, flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def answer(scope, receive, send, found):
    """A request: its body is read to the end, and the client's leaving waited for on /leave."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/leave":
        assert (await receive())["type"] == "http.disconnect"
        seen["lifespan"] += found
        return
    body = json.dumps({"request": found, "lifespan": seen["lifespan"], "keys": sorted(scope)}).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def converse(scope, receive, send, found):
    """A WebSocket: each message is answered with what was found so far."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": json.dumps(found), "bytes": None})
    seen["lifespan"] += found
