"""The application of test_https.py: it answers with what its scope says of the connection."""

import json


async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/echo":
        answer = body
    else:
        answer = json.dumps({"scheme": scope["scheme"], "tls": scope.get("extensions", {}).get("tls")}).encode()
    length = str(len(answer)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": answer})
