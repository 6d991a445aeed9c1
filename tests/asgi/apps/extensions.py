"""Apps that use the extensions of responses."""

import json
import os

from .routes import query, respond, route, start, tell


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
