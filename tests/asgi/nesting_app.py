"""An application that runs the loop within its own tasks, as nest_asyncio lets programs do by a mark on asyncio."""

import asyncio
import os

if os.environ["NESTING"] == "from the start":
    asyncio._nest_patched = True


async def half(text: bytes) -> bytes:
    await asyncio.sleep(0.002)
    return text[: len(text) // 2]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/begin":  # by what nest_asyncio.apply() does
        asyncio._nest_patched = True
        assert hasattr(asyncio.get_running_loop(), "_nest_patched")
    message = await receive()
    body = asyncio.get_running_loop().run_until_complete(half(2 * (message["body"] or b"nothing")))
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
