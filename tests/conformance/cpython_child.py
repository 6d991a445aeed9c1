"""One module of CPython's asyncio suite on one loop: `cpython_child.py <module:factory> <test module>`.

Started by cpython.py in a process and a folder of its own. Writes one JSON object a line: {"start": name} as each test
begins, {"skipped": name, "reason": ...}, and {"result": ...} at the end.
"""

import asyncio
import contextlib
import faulthandler
import importlib
import io
import json
import os
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from cpython_skips import CLASSES, reason_to_skip


def say(**what: Any) -> None:
    """Tell the parent, past whatever a test has done to sys.stdout."""
    os.write(1, (json.dumps(what) + "\n").encode())


def replace_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Let every way in which the suite makes a loop give one of `factory`."""
    sample = factory()
    kind = type(sample)
    sample.close()

    class OfThisLoop(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, kind)

    class SelectorEventLoop(metaclass=OfThisLoop):
        def __new__(cls, selector: object = None) -> asyncio.AbstractEventLoop:
            return factory()

    for name in ("SelectorEventLoop", "EventLoop"):
        if hasattr(asyncio, name):
            setattr(asyncio, name, SelectorEventLoop)
    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        policy = getattr(asyncio.unix_events, name, None)
        if policy is not None:
            policy._loop_factory = staticmethod(factory)


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """utils.TestCase.close_loop() by public methods: the suite's own looks at loop._default_executor."""
    if not loop.is_closed():
        if not loop.is_running():
            with contextlib.suppress(Exception):
                loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def tests_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_in(test)
        else:
            yield test


class Result(unittest.TextTestResult):
    """Says which test begins, so that a crash or a hang has a name."""

    def startTest(self, test: unittest.TestCase) -> None:
        say(start=test.id().removeprefix("test.test_asyncio."))
        super().startTest(test)


def selected(module: Any, name: str) -> unittest.TestSuite:
    classes = CLASSES[name]
    suite = unittest.TestSuite()
    for test in tests_in(unittest.defaultTestLoader.loadTestsFromModule(module)):
        if classes is not None and type(test).__name__ not in classes:
            continue
        test_name = test.id().removeprefix("test.test_asyncio.")
        reason = reason_to_skip(test_name)
        if reason is None:
            suite.addTest(test)
        else:
            say(skipped=test_name, reason=reason)
    return suite


def names_of(entries: list[tuple[Any, str]]) -> list[list[str]]:
    return [
        [str(getattr(test, "id", lambda test=test: test)()).removeprefix("test.test_asyncio."), trace]
        for test, trace in entries
    ]


def main() -> None:
    spec, name = sys.argv[1:]
    faulthandler.enable()
    warnings.simplefilter("ignore")
    module_name, _, attribute = spec.partition(":")
    factory = getattr(importlib.import_module(module_name), attribute)
    if module_name != "asyncio":
        replace_loop(factory)
        from test.test_asyncio import utils

        utils.TestCase.close_loop = staticmethod(close_loop)
    tests = importlib.import_module("test.test_asyncio." + name)
    suite = selected(tests, name)
    result = unittest.TextTestRunner(stream=io.StringIO(), resultclass=Result, verbosity=0).run(suite)
    bad = names_of(result.failures + result.errors)
    bad += [[test.id(), "passed, though it is expected to fail"] for test in result.unexpectedSuccesses]
    say(result={"run": result.testsRun, "skipped": len(result.skipped), "bad": bad})
    sys.stdout.flush()
    os._exit(0)  # threads and loops that a test left behind must not hold this up


if __name__ == "__main__":
    main()
