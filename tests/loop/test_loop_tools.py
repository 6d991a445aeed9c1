"""`python -m asyncio ps` and `pstree` see the tasks of a loop from outside, since CPython 3.14."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.loops import start_script
from support.server import ServerProcess

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 14), reason="python -m asyncio ps is new in CPython 3.14"),
    pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere it takes special rights"),
]

PROGRAM = """
async def inner(event):
    await event.wait()

async def outer(event):
    async with asyncio.TaskGroup() as group:
        group.create_task(inner(event), name="bolide-inner-1")
        group.create_task(inner(event), name="bolide-inner-2")

async def main():
    if "eager" in sys.argv:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    event = asyncio.Event()
    task = asyncio.create_task(outer(event), name="bolide-outer")
    eager = asyncio.eager_task_factory(asyncio.get_running_loop(), inner(event), name="bolide-eager")
    await asyncio.sleep(0.01)
    print("ready", flush=True)
    await task

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


@contextmanager
def running(*arguments: str) -> Iterator[int]:
    with start_script(PROGRAM, *arguments, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def look(tool: str, pid: int) -> str:
    """What the tool prints of the process; the test is skipped where it is not allowed to look."""
    command = [sys.executable, "-m", "asyncio", tool, str(pid)]
    for _ in range(5):  # it reads while the process runs, and may find things half changed
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, env={**os.environ, "NO_COLOR": "1"})
        if done.returncode == 0:
            return done.stdout
        if "permission" in done.stderr.lower() or "not permitted" in done.stderr.lower():
            pytest.skip(f"another process may not be looked into here: {done.stderr.strip().splitlines()[-1]}")
    raise AssertionError(done.stderr)


@pytest.mark.parametrize("factory", ["lazy", "eager"])
def test_ps(factory):
    with running(factory) as pid:
        table = look("ps", pid)
    for name in ("bolide-outer", "bolide-inner-1", "bolide-inner-2", "bolide-eager"):
        assert name in table, table
    assert "TaskGroup" in table


def test_pstree():
    with running() as pid:
        tree = look("pstree", pid)
    outer, first, second = (tree.index(name) for name in ("bolide-outer", "bolide-inner-1", "bolide-inner-2"))
    assert outer < min(first, second), tree


def test_the_requests_of_a_server():
    """Each request is a real task, seen with the coroutine that it waits in."""
    with ServerProcess("apps:app") as server, server.connect() as one, server.connect() as two:
        for connection in (one, two):
            connection.send(b"GET /control/wait/never HTTP/1.1\r\nHost: x\r\n\r\n")
        end = time.monotonic() + 30
        while (table := look("ps", server.pid)).count("control") < 2 and time.monotonic() < end:
            time.sleep(0.05)  # for the server to read the requests
        assert table.count("control") >= 2, table
        assert "Event.wait" in table, table
