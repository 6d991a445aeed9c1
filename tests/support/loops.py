"""The loop under test, in this process or in one of its own.

BOLIDE_TEST_LOOP names the module whose new_event_loop() makes it: "bolide" (the default) or "asyncio" or "uvloop",
which shows that a test states what asyncio promises.
"""

import asyncio
import importlib
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .server import REPOSITORY

LOOP = os.environ.get("BOLIDE_TEST_LOOP", "bolide")
only_bolide = pytest.mark.skipif(LOOP != "bolide", reason="about what only bolide promises")
not_uvloop = pytest.mark.skipif(LOOP == "uvloop", reason="has ways and words of its own")

PRELUDE = """
import asyncio, gc, os, signal, socket, sys, threading, time
from {module} import new_event_loop
"""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new loop of the kind under test."""
    return importlib.import_module(LOOP).new_event_loop()


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    """What the fixture `loop` gave to its exception handler; a test that expects some takes them out."""
    return []


@pytest.fixture
def loop(reports: list[dict[str, Any]]) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is closed at the end and must not have reported an error then."""
    made = new_event_loop()
    made.set_exception_handler(lambda _, context: reports.append(context))
    yield made
    if not made.is_closed():
        made.run_until_complete(made.shutdown_asyncgens())
        made.run_until_complete(made.shutdown_default_executor())
        made.close()
    assert reports == [], reports


def with_loop(coroutine: Callable[..., Any]) -> Callable[..., None]:
    """A test that is a coroutine function, run on the fixture `loop`."""

    def test(loop: asyncio.AbstractEventLoop, **arguments: Any) -> None:
        loop.run_until_complete(asyncio.wait_for(coroutine(**arguments), 40))

    test.__name__, test.__doc__ = coroutine.__name__, coroutine.__doc__
    test.pytestmark = getattr(coroutine, "pytestmark", [])  # type: ignore[attr-defined]
    names = coroutine.__code__.co_varnames[: coroutine.__code__.co_argcount]
    test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("loop", *names)]
    )
    return test


def start_script(source: str, *arguments: str, options: tuple[str, ...] = (), **popen: Any) -> subprocess.Popen[str]:
    """Start a Python program that has the usual modules and `new_event_loop` at hand."""
    program = PRELUDE.format(module=LOOP) + textwrap.dedent(source)
    popen.setdefault("stdout", subprocess.PIPE)
    popen.setdefault("stderr", subprocess.PIPE)
    command = [sys.executable, *options, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", **popen.pop("env", {})}
    return subprocess.Popen(command, text=True, env=environment, cwd=REPOSITORY / "tests", **popen)


def run_script(
    source: str,
    *arguments: str,
    options: tuple[str, ...] = (),
    returncode: int | None = 0,
    timeout: float = 50,
    **popen: Any,
) -> subprocess.CompletedProcess[str]:
    """Run such a program to its end and check its exit status (None: any but a crash)."""
    with start_script(source, *arguments, options=options, **popen) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    if returncode is None:
        assert process.returncode >= 0, f"crashed with {process.returncode}:\n{out}\n{err}"
    else:
        assert process.returncode == returncode, f"ended with {process.returncode}:\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_monkey(script: Path, seed: int, folder: Path, *arguments: str) -> int:
    """Let a monkey of tests play in `folder`: how many steps it did. A failure names the seed.

    BOLIDE_MONKEY_SECONDS gives it more time, BOLIDE_MONKEY_SEED other seeds.
    """
    seconds = float(os.environ.get("BOLIDE_MONKEY_SECONDS", "2"))
    seed += int(os.environ.get("BOLIDE_MONKEY_SEED", "0"))
    command = [sys.executable, str(script), *arguments, str(seed), str(seconds)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": seconds + 50, "cwd": folder}
    result = subprocess.run(command, check=False, **options)
    assert result.returncode == 0, f"seed {seed}: {result.stderr}"
    return int(result.stdout.splitlines()[-1].split()[0])  # odd calls may print, too
