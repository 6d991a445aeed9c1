"""The application behind the corpus: it answers every request and keeps an account of what reached it, by connection.

GET /account?PORT tells, as JSON, what came on the connection from that port of the client.
"""

import json

ACCOUNTS: dict[int, list[dict]] = {}


async def app(scope, receive, send):
    """See the module."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            event = await receive()
            await send({"type": event["type"] + ".complete"})
        return
    port = int(scope["client"][1])
    if scope["path"] == "/account":
        body = json.dumps(ACCOUNTS.pop(int(scope["query_string"]), [])).encode()
        await respond(send, body)
        return
    seen = {
        "type": scope["type"],
        "method": scope.get("method"),
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "version": scope["http_version"],
        "headers": [
            [bytes(name).decode("latin-1"), bytes(value).decode("latin-1")] for name, value in scope["headers"]
        ],
        "body": "",
        "complete": False,
    }
    ACCOUNTS.setdefault(port, []).append(seen)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        return
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        seen["body"] += event["body"].decode("latin-1")
        if not event["more_body"]:
            break
    seen["complete"] = True
    await respond(send, b"seen")


async def respond(send, body):
    """Answer with 200 and a field that only the application sends."""
    headers = [(b"content-length", b"%d" % len(body)), (b"x-app", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
