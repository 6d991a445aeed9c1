"""Runs a server's coroutine on a loop of its own and closes that loop in bounded time."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")

logger = logging.getLogger("bolide.error")


def run(
    main: Coroutine[Any, Any, T],
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    patience: Callable[[], float],
) -> T:
    """Run `main` to its end on a new loop, then cancel what is left on that loop and close it.

    As asyncio.run does, except that a task that swallows its cancellation is left behind after a while, with a warning,
    instead of keeping the process for ever; and that signals are left alone.

    Args:
        main: what to run.
        loop_factory: makes the loop.
        patience: tells, once `main` has ended, the seconds that leftover tasks get to end after their cancellation.

    Returns:
        what `main` returns.

    Raises:
        RuntimeError: a loop is running in this thread.
        BaseException: whatever `main` raises.
    """
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("cannot be called from a running event loop: await Server.serve() there")
    try:
        loop = loop_factory()
    except BaseException:
        main.close()
        raise
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all_tasks(loop, patience())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


def _cancel_all_tasks(loop: asyncio.AbstractEventLoop, patience: float) -> None:
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    done, pending = loop.run_until_complete(asyncio.wait(tasks, timeout=patience))
    for task in done:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception of a task that was cancelled as the server stopped",
                    "exception": task.exception(),
                    "task": task,
                }
            )
    if pending:
        names = ", ".join(sorted(task.get_name() for task in pending))
        logger.warning("Left behind after %g s, not ended by their cancellation: %s", patience, names)
