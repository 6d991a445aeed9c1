"""For applications written for servers on which a client that leaves is told by receive() alone, as on uvicorn."""

import contextlib

from bolide._core import ClientDisconnected
from bolide._types import ASGI3App, Message, Receive, Scope, Send

__all__ = ["QuietDisconnectMiddleware"]


class QuietDisconnectMiddleware:
    """Has send() do nothing when the client has left, and says that HTTP is served as of ASGI 2.3.

    Starlette then ends the generator of a StreamingResponse at once when the client leaves, waiting or not, and runs
    the background tasks of all responses. A stream that never asks receive() has no end then.

    Args:
        app: the ASGI application.
    """

    def __init__(self, app: ASGI3App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application as this changes it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_or_drop(message: Message) -> None:
            with contextlib.suppress(ClientDisconnected):
                await send(message)

        scope["asgi"] = {**scope["asgi"], "spec_version": "2.3"}
        return await self.app(scope, receive, send_or_drop)
