"""What a program sees on the loop under test and on asyncio's own: the same, whatever the version of CPython."""

import asyncio
import difflib
import inspect
import logging
import re
from collections.abc import Callable
from typing import Any

from .loops import new_event_loop
from .protocols import Recorder

# The names of classes, and numbers that differ from run to run.
_DIFFERENCES = [
    (re.compile(r"\b(?:bolide\.)?(?:_SelectorSocketTransport|StreamTransport)\b"), "STREAM"),
    (re.compile(r"\b(?:bolide\.)?(?:_SelectorDatagramTransport|DatagramTransport)\b"), "DATAGRAM"),
    (re.compile(r"<asyncio\.sslproto\.\w+ object at 0x[0-9a-f]+>|<bolide\.SSLTransport.*?>>"), "TLS"),
    (re.compile(r"\b(?:bolide\._core\.)?(?:_UnixSelectorEventLoop|Loop)\b"), "LOOP"),
    (re.compile(r"0x[0-9a-f]+"), "ADDRESS"),
    (re.compile(r"\bfd=\d+"), "fd=N"),
    (re.compile(r"('(?:127\.0\.0\.1|::1)'), \d+"), r"\1, PORT"),
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r"\d+\.\d+ ?(?:ms|seconds)"), "TIME"),
    (re.compile(r"\.py:\d+"), ".py:LINE"),
]


class Notes(list[str]):
    """What a scenario has seen, as text that both loops can agree on."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, *things: Any) -> None:
        """Note these things: text as it is, anything else by its repr."""
        text = " ".join(thing if isinstance(thing, str) else repr(thing) for thing in things)
        for pattern, replacement in _DIFFERENCES:
            text = pattern.sub(replacement, text)
        self.append(text)
        self._more.set()

    async def until(self, start: str) -> None:
        """Wait for a note that starts so."""
        while not any(note.startswith(start) for note in self):
            self._more.clear()
            await self._more.wait()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function, and note the type and the words of what it raises."""
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self("raised", type(error).__name__, str(error))
            return None
        self("returned", "an object" if isinstance(result, asyncio.Handle) else result)
        return result

    async def wait(self, awaitable: Any) -> Any:
        """Await it, and note the type and the words of what it raises."""
        try:
            result = await asyncio.wait_for(awaitable, 20)
        except (Exception, asyncio.CancelledError) as error:
            self("raised", type(error).__name__, str(error))
            return None
        self("returned", type(result).__name__)
        return result


class Noting(Recorder):
    """A protocol that notes what it is told, as it comes."""

    def __init__(self, notes: Notes, name: str = "") -> None:
        super().__init__()
        self.notes, self.name = notes, name

    def data_received(self, data: bytes) -> None:
        self.notes(self.name, "data", data)
        super().data_received(data)

    def eof_received(self) -> bool:
        self.notes(self.name, "eof")
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.notes(self.name, "lost", exc)
        super().connection_lost(exc)


class _Log(logging.Handler):
    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        failed = record.exc_info[0] if record.exc_info else None
        if "Using selector" not in record.msg:
            self.notes("log", record.levelname, record.getMessage(), failed.__name__ if failed else "")


def _run(make: Callable[[], Any], scenario: Callable[..., Any], debug: bool) -> Notes:
    notes = Notes()
    logger, handler = logging.getLogger("asyncio"), _Log(notes)
    level = logger.level
    loop = make()
    loop.slow_callback_duration = 60
    loop.set_debug(debug)
    loop.set_exception_handler(
        lambda _, context: notes("reported", context["message"], sorted(context), context.get("exception"))
    )
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        result = scenario(loop, notes)
        if inspect.isawaitable(result):
            loop.run_until_complete(asyncio.wait_for(result, 40))
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        loop.close()
    return notes


def check(scenario: Callable[..., Any], debug: bool = False) -> Notes:
    """Run scenario(loop, notes), a function or coroutine function, on both loops. Returns what it noted on the tested.

    In debug mode the lines that asyncio logs are noted too.
    """
    expected = _run(asyncio.SelectorEventLoop, scenario, debug)
    seen = _run(new_event_loop, scenario, debug)
    assert seen == expected, "\n".join(difflib.unified_diff(expected, seen, "asyncio", "tested", lineterm=""))
    return seen
