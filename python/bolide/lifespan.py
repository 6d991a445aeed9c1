"""Tells the application that the server starts and stops (ASGI lifespan protocol, spec version 2.0)."""

import asyncio
import logging
from typing import Any

from bolide._types import Message, Scope
from bolide.config import Config

__all__ = ["Lifespan", "LifespanOff"]

_STARTUP_ENDS = ("lifespan.startup.complete", "lifespan.startup.failed")
_SHUTDOWN_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")

logger = logging.getLogger("bolide.error")


class LifespanOff:
    """The lifespan of an application that is not told.

    Attributes:
        state: what requests find in scope["state"].
        should_exit: whether the server must not go on; never here.
    """

    def __init__(self, config: Config) -> None:
        self.state: dict[str, Any] = {}
        self.should_exit = False

    async def startup(self) -> None:
        """Nothing."""

    async def shutdown(self) -> None:
        """Nothing."""


class Lifespan:
    """The lifespan of one application on one server: runs it with a lifespan scope in a task of its own.

    An application that raises, that returns, or that answers with messages of another protocol is served all the same,
    unless config.lifespan is "on".

    Attributes:
        state: the dict that the application fills; requests get copies as scope["state"].
        should_exit: whether startup or shutdown failed, so that the server must not go on.
        task: what runs the application, from startup() on.
    """

    def __init__(self, config: Config) -> None:
        config.load()
        assert config.loaded_app is not None
        self.config = config
        self.app = config.loaded_app
        self.state: dict[str, Any] = {}
        self.should_exit = False
        self.task: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._raised = False
        self._completed_startup = False
        self._startup_failed = False
        self._shutdown_failed = False
        self._shutdown_began = False

    async def startup(self) -> None:
        """Send lifespan.startup and wait for the answer, or for the application to end. Sets should_exit on failure."""
        logger.info("Waiting for application startup.")
        self.task = asyncio.get_running_loop().create_task(self._run(), name="bolide lifespan")
        self._events.put_nowait({"type": "lifespan.startup"})
        await self._started.wait()
        if self._startup_failed or (self._raised and self.config.lifespan == "on"):
            logger.error("Application startup failed. Exiting.")
            self.should_exit = True
        else:
            logger.info("Application startup complete.")

    async def shutdown(self) -> None:
        """Send lifespan.shutdown and wait for the answer or for the application to end. Sets should_exit on failure."""
        if self._raised or self.task is None:
            return
        logger.info("Waiting for application shutdown.")
        self._shutdown_began = True
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await self._stopped.wait()
        if self._shutdown_failed or (self._raised and self.config.lifespan == "on"):
            logger.error("Application shutdown failed. Exiting.")
            self.should_exit = True
        else:
            logger.info("Application shutdown complete.")

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self.app(scope, self._receive, self._send)
        except BaseException as exc:
            self._on_exception(exc)
        finally:
            self._started.set()
            self._stopped.set()

    def _on_exception(self, exc: BaseException) -> None:
        # Cancelled after its work is done: the loop is being closed around an application that waits for ever.
        if isinstance(exc, asyncio.CancelledError) and self._stopped.is_set():
            raise exc
        self._raised = True
        if self._startup_failed or self._shutdown_failed:
            return
        if self._is_dropped():
            logger.debug("The application's lifespan was cancelled:", exc_info=exc)
        elif self.config.lifespan == "auto" and not self._completed_startup:
            logger.info("ASGI 'lifespan' protocol appears unsupported.")
            logger.debug("The application raised on it:", exc_info=exc)
        else:
            logger.error("Exception in 'lifespan' protocol", exc_info=exc)

    async def _receive(self) -> Message:
        return await self._events.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind in _STARTUP_ENDS:
            if self._started.is_set() or self._stopped.is_set():
                raise RuntimeError(f"unexpected message {kind!r}: the startup has ended before")
            self._startup_failed = kind == "lifespan.startup.failed"
            self._completed_startup = not self._startup_failed
            self._log_failure(message, self._startup_failed)
            self._started.set()
        elif kind in _SHUTDOWN_ENDS:
            if not self._started.is_set() or self._stopped.is_set():
                raise RuntimeError(f"unexpected message {kind!r}: nothing is to be shut down")
            self._shutdown_failed = kind == "lifespan.shutdown.failed"
            self._log_failure(message, self._shutdown_failed)
            self._stopped.set()
        else:
            expected = ", ".join(_STARTUP_ENDS + _SHUTDOWN_ENDS)
            raise RuntimeError(f"unexpected message {kind!r} on a lifespan scope: expected one of {expected}")

    def _log_failure(self, message: Message, failed: bool) -> None:
        if failed and message.get("message"):
            logger.log(logging.DEBUG if self._is_dropped() else logging.ERROR, "%s", message["message"])

    def _is_dropped(self) -> bool:
        """Whether the task is being cancelled because the server ended without the application's shutdown."""
        return (
            self._completed_startup
            and not self._shutdown_began
            and self.task is not None
            and bool(self.task.cancelling())
        )
