"""Apps that answer in every form, right and wrong."""

from .routes import query, respond, route, start, tell


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
