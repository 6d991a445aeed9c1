"""A loop that runs again from within one of its callbacks, where nest_asyncio was applied."""

from __future__ import annotations

import asyncio
import threading
from asyncio import events, tasks
from typing import Any


def is_wanted() -> bool:
    """Whether nest_asyncio was applied to asyncio."""
    return bool(getattr(asyncio, "_nest_patched", False))


def run_nested(loop: Any, future: Any) -> Any:
    """loop.run_until_complete(future) while a loop, perhaps this one, runs in this thread."""
    outer: Any = events._get_running_loop()
    current = asyncio.current_task(outer)
    if current is not None:
        tasks._leave_task(outer, current)
    # Since CPython 3.14 tasks in Python, which nest_asyncio brings, are noted apart from those in C.
    noted: dict[Any, Any] = getattr(tasks, "_current_tasks", {})
    current_in_python = noted.pop(outer, None)
    events._set_running_loop(None)
    try:
        if loop._thread_id != threading.get_ident():
            return loop._run_on_top(future)
        loop._check_turn()
        events._set_running_loop(loop)
        return _take_turns(loop, future)
    finally:
        events._set_running_loop(outer)
        if current is not None:
            tasks._enter_task(outer, current)
        if current_in_python is not None:
            noted[outer] = current_in_python


def _take_turns(loop: Any, future: Any) -> Any:
    is_new = not asyncio.isfuture(future)
    waited: Any = asyncio.ensure_future(future, loop=loop)
    if is_new:
        waited._log_destroy_pending = False  # who gave the coroutine gets the exception that ends the wait
    while not waited.done():
        loop._run_turn()
    return waited.result()
