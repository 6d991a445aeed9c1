"""Serves an application of the ASGI 2 interface, `app(scope)(receive, send)`."""

from bolide._types import ASGI2App, Receive, Scope, Send

__all__ = ["ASGI2Middleware"]


class ASGI2Middleware:
    """ASGI 3 application that calls `app`, one of ASGI 2: a callable of scope that returns one of receive and send."""

    def __init__(self, app: ASGI2App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope)(receive, send)
