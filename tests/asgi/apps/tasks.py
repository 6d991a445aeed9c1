"""Apps about the task that runs a request, and others beside it."""

import asyncio
import contextlib
import contextvars
import gc
import json
import os
import threading

from .errors import Deliberate
from .routes import EVENTS, VALUES, query, respond, route, tell

KEPT_TASKS: set[asyncio.Task] = set()


@route
async def background(scope, receive, send):
    """Answer, then go on until released: Starlette runs its background tasks like this."""
    key = query(scope)["key"]
    await respond(send, b"answered")
    tell(f"{key}.working")
    await EVENTS[f"{key}.release"].wait()
    print(f"background {key} finished", flush=True)
    tell(f"{key}.done", "finished")


@route
async def starlette_background(scope, receive, send):
    """Starlette's own BackgroundTask behind a response of so many bytes."""
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse

    key = query(scope)["key"]

    async def work():
        tell(f"{key}.working")
        await EVENTS[f"{key}.release"].wait()
        tell(f"{key}.done", "finished")

    body = "x" * int(query(scope).get("size", "8"))
    await PlainTextResponse(body, background=BackgroundTask(work))(scope, receive, send)


@route
async def leave_task(scope, receive, send):
    """Start a task that never ends, and answer."""
    KEPT_TASKS.add(asyncio.create_task(asyncio.Event().wait(), name="runs for ever"))
    await respond(send, b"left one")


@route
async def task_facts(scope, receive, send):
    """Tell what asyncio knows about the task that runs the request, before the first await and after it."""

    def facts():
        task = asyncio.current_task()
        return {
            "is_task": type(task) is asyncio.Task,
            "listed": task in asyncio.all_tasks(),
            "name": isinstance(task.get_name(), str),
            "done": task.done(),
            "cancelling": task.cancelling(),
            "loop": task.get_loop() is asyncio.get_running_loop(),
            "coroutine": asyncio.iscoroutine(task.get_coro()),
        }

    before = facts()
    await asyncio.sleep(0)
    await respond(send, json.dumps({"before": before, "after": facts()}).encode())


@route
async def task_group(scope, receive, send):
    """A TaskGroup as the very first thing."""
    async with asyncio.TaskGroup() as group:
        results = [group.create_task(asyncio.sleep(0, number)) for number in range(5)]
    await respond(send, repr([task.result() for task in results]).encode())


@route
async def task_group_failure(scope, receive, send):
    """A TaskGroup of which one fails and cancels the others."""
    cancelled = []

    async def wait_for_ever():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    async def fail():
        raise Deliberate("in a group")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_ever())
            group.create_task(fail())
    except* Deliberate as caught:
        await respond(send, json.dumps({"caught": len(caught.exceptions), "cancelled": len(cancelled)}).encode())


@route
async def timeout(scope, receive, send):
    """asyncio.timeout as the very first thing, around a wait without end."""
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        await respond(send, b"timed out")


@route
async def cancel_self(scope, receive, send):
    """Cancel one's own task before the first await, catch that, answer."""
    task = asyncio.current_task()
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        task.uncancel()
        await respond(send, b"caught it")


@route
async def anyio_facts(scope, receive, send):
    """anyio: cancel scopes, task groups, threads, its own idea of the current task."""
    import anyio
    import anyio.to_thread

    done = []
    with anyio.move_on_after(0.001) as cancel_scope:
        await anyio.sleep_forever()
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(note, done, number)
    thread = await anyio.to_thread.run_sync(threading.get_ident)
    facts = {
        "cancelled": cancel_scope.cancelled_caught,
        "done": sorted(done),
        "thread": thread != threading.get_ident(),
        "task": anyio.get_current_task().id == id(asyncio.current_task()),
    }
    await respond(send, json.dumps(facts).encode())


async def note(done, number):
    """Append a number after a turn of the loop."""
    await asyncio.sleep(0)
    done.append(number)


REQUEST_NUMBER = contextvars.ContextVar("REQUEST_NUMBER", default="unset")


@route
async def context(scope, receive, send):
    """Tell what the context variable was, then set it: requests must not see one another's."""
    before = REQUEST_NUMBER.get()
    REQUEST_NUMBER.set(scope["query_string"].decode())
    await asyncio.sleep(0)
    await respond(send, f"{before} {REQUEST_NUMBER.get()}".encode())


@route
async def rendezvous(scope, receive, send):
    """Answer when so many requests are here at once."""
    key, count = query(scope)["key"], int(query(scope)["count"])
    VALUES[f"{key}.here"] = VALUES.get(f"{key}.here", 0) + 1
    if VALUES[f"{key}.here"] == count:
        EVENTS[f"{key}.all"].set()
    await EVENTS[f"{key}.all"].wait()
    await asyncio.sleep(0.01)
    await respond(send, str(VALUES[f"{key}.here"]).encode())


@route
async def executor(scope, receive, send):
    """Run something in the default executor."""
    ident = await asyncio.get_running_loop().run_in_executor(None, threading.get_ident)
    await respond(send, b"another thread" if ident != threading.get_ident() else b"the same thread")


@route
async def called_elsewhere(scope, receive, send):
    """Echo from a thread, which calls receive() and send() and has the loop await what they return, as a2wsgi does."""
    loop = asyncio.get_running_loop()

    def run(awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, loop).result()

    def work():
        body, more = b"", True
        while more:
            message = run(receive())
            body += message["body"]
            more = message["more_body"]
        unsent = send({"type": "http.response.body"})  # never awaited
        run(send({"type": "http.response.start", "status": 200, "headers": []}))
        for begin in range(0, len(body), 100_000):
            run(send({"type": "http.response.body", "body": body[begin : begin + 100_000], "more_body": True}))
        del unsent
        with contextlib.suppress(RuntimeError):
            run(send({"type": "no such type"}))
            return
        with contextlib.suppress(RuntimeError):
            receive().send(None)  # awaits it here
            return
        run(send({"type": "http.response.body"}))

    await asyncio.to_thread(work)


@route
async def loop_name(scope, receive, send):
    """Tell which loop this runs on."""
    loop = type(asyncio.get_running_loop())
    await respond(send, f"{loop.__module__}.{loop.__qualname__}".encode())


@route
async def collect_garbage(scope, receive, send):
    """Collect it, so that the memory of the process tells what is in use."""
    gc.collect()
    await respond(send)


@route
async def process_id(scope, receive, send):
    """Tell the process id."""
    await respond(send, str(os.getpid()).encode())
