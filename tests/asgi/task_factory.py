"""The application of the test about task factories: it sets the one that TASK_FACTORY names when it starts up."""

import asyncio
import contextvars
import json
import os

MADE = []
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Own(asyncio.Task):
    """A task of the user's own."""


def plain(loop, coro):
    """What factories were before they were told more."""
    MADE.append(coro)
    return asyncio.Task(coro, loop=loop)


def eager(loop, coro, **options):
    """Start tasks eagerly."""
    MADE.append(coro)
    return asyncio.eager_task_factory(loop, coro, **options)


def subclass(loop, coro, **options):
    """Make tasks of another class."""
    MADE.append(coro)
    return Own(coro, loop=loop, **options)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        asyncio.get_running_loop().set_task_factory(globals()[os.environ["TASK_FACTORY"]])
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    variable = VARIABLE.get()
    VARIABLE.set("set by a request")
    if scope["path"] == "/fail":
        raise RuntimeError("on purpose")
    task = asyncio.current_task()
    told = {"made_here": task.get_coro() in MADE, "task": type(task).__name__, "variable": variable}
    await asyncio.sleep(0)
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
