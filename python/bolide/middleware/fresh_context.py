"""Runs each request in an empty context, for `--reset-contextvars`."""

import asyncio
import contextvars

from bolide._types import ASGI3App, Receive, Scope, Send

__all__ = ["FreshContextMiddleware"]


class FreshContextMiddleware:
    """Application that runs `app` in a task of its own, in a contextvars.Context without variables.

    The lifespan keeps its context. Cancelling the request cancels that task.
    """

    def __init__(self, app: ASGI3App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def call() -> None:
            await self.app(scope, receive, send)

        await asyncio.get_running_loop().create_task(call(), context=contextvars.Context())
