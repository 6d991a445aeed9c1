"""A service without a framework: it answers with the SHA-256 of what is uploaded, however large.

Serve it by the command, or run this file, which calls the API:

    bolide --app-dir examples raw_asgi:app
    python examples/raw_asgi.py 8000

    curl -T some.iso http://127.0.0.1:8000/
"""

import hashlib
import sys

HELP = b"PUT or POST anything here, and its SHA-256 comes back.\n"


async def app(scope, receive, send):
    """Hash the body piece by piece as it arrives: the server reads no faster than this consumes."""
    if scope["type"] == "lifespan":
        await answer_lifespan(receive, send)
        return
    if scope["method"] not in ("PUT", "POST"):
        await respond(send, 200 if scope["method"] in ("GET", "HEAD") else 405, HELP)
        return
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    await respond(send, 200, f"{digest.hexdigest()}  {scope['path']}\n".encode())


async def answer_lifespan(receive, send):
    """Nothing to open, nothing to close: say so."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def respond(send, status, text):
    """Send a whole plain-text response."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


if __name__ == "__main__":
    import bolide

    bolide.serve(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
