"""Logs every ASGI message, for `--log-level trace`."""

import logging

from bolide._types import ASGI3App, Message, Receive, Scope, Send
from bolide.logging import TRACE

__all__ = ["MessageLoggerMiddleware"]

_CONTENT_KEYS = {"body": "bytes", "bytes": "bytes", "text": "chars"}


def _without_content(message: Message) -> dict[str, object]:
    """A copy of `message` with its headers left out and its content replaced by its length."""
    shown = dict(message)
    for key, unit in _CONTENT_KEYS.items():
        if shown.get(key) is not None:
            shown[key] = f"<{len(message[key])} {unit}>"
    if shown.get("headers") is not None:
        shown["headers"] = "<...>"
    return shown


class MessageLoggerMiddleware:
    """Application that logs on "bolide.asgi", at level TRACE, what passes between `app` and the server."""

    def __init__(self, app: ASGI3App) -> None:
        self.app = app
        self.logger = logging.getLogger("bolide.asgi")
        self._calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._calls += 1
        client = scope.get("client")
        prefix = f"{client[0]}:{client[1]} - " if client else ""
        label = f"{prefix}ASGI [{self._calls}]"
        trace = self.logger.log

        async def logged_receive() -> Message:
            message = await receive()
            trace(TRACE, "%s Receive %s", label, _without_content(message))
            return message

        async def logged_send(message: Message) -> None:
            trace(TRACE, "%s Send %s", label, _without_content(message))
            await send(message)

        trace(TRACE, "%s Started scope=%s", label, _without_content(scope))
        try:
            await self.app(scope, logged_receive, logged_send)
        except BaseException:
            trace(TRACE, "%s Raised exception", label)
            raise
        trace(TRACE, "%s Completed", label)
