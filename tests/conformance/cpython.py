#!/usr/bin/env python3
"""Hold event loops against CPython's own asyncio tests: `cpython.py [--loop NAME]... [test module]...`

Runs the test.test_asyncio of the interpreter that runs this, each module in a process and a temporary folder of its
own with a time limit, on asyncio's loop, on uvloop (when it is installed) and on bolide, and prints a table. A crash
or a hang counts as one failure, and the tests that it kept from running are not counted as passed. cpython_skips.py
lists what is left out, for every loop alike. The exit status says whether bolide passed all.

test.test_asyncio is a part of CPython, but some distributions package it apart; Debian's name for it is
libpython3.X-testsuite.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cpython_skips import CLASSES

HERE = Path(__file__).resolve().parent
LOOPS = {"asyncio": "asyncio:new_event_loop", "uvloop": "uvloop:new_event_loop", "bolide": "bolide:new_event_loop"}


@dataclass
class Outcome:
    """What came of one module on one loop."""

    passed: int = 0
    skipped: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0

    def cell(self) -> str:
        return f"{self.passed} / {len(self.failures)}"


def run_module(loop: str, module: str, limit: float) -> Outcome:
    began = time.monotonic()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(":"),
    }
    command = [sys.executable, str(HERE / "cpython_child.py"), LOOPS[loop], module]
    with tempfile.TemporaryDirectory(prefix="bolide-conformance-") as folder:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = child.communicate(timeout=limit)
            why = f"the process ended with {child.returncode}"
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            why = f"hung: over {limit:.0f} s"
    outcome = read_outcome(out.decode(errors="replace"), why, err.decode(errors="replace"))
    outcome.seconds = time.monotonic() - began
    return outcome


def read_outcome(out: str, why: str, err: str) -> Outcome:
    outcome = Outcome()
    started: list[str] = []
    finished = False
    for line in out.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue  # a test printed something
        if not isinstance(told, dict):
            continue
        if "start" in told:
            started.append(told["start"])
        elif "skipped" in told:
            outcome.left_out[told["skipped"]] = told["reason"]
        elif "result" in told:
            result = told["result"]
            finished = True
            outcome.failures = [(name, trace) for name, trace in result["bad"]]
            outcome.skipped = result["skipped"]
            outcome.passed = result["run"] - len(result["bad"]) - result["skipped"]
    if not finished:
        outcome.passed = max(len(started) - 1, 0)
        outcome.failures = [(f"{started[-1] if started else 'import'}", f"{why}\n{err[-3000:]}")]
    return outcome


def last_line(trace: str) -> str:
    lines = [line for line in trace.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:150] if lines else ""


def print_table(loops: list[str], outcomes: dict[str, dict[str, Outcome]]) -> None:
    print(f"{'passed / failed':22}" + "".join(f"{loop:>16}" for loop in loops))
    for module, by_loop in outcomes.items():
        print(f"{module:22}" + "".join(f"{by_loop[loop].cell():>16}" for loop in loops))
    totals = {
        loop: Outcome(
            passed=sum(by_loop[loop].passed for by_loop in outcomes.values()),
            failures=[failure for by_loop in outcomes.values() for failure in by_loop[loop].failures],
        )
        for loop in loops
    }
    print(f"{'all':22}" + "".join(f"{totals[loop].cell():>16}" for loop in loops))


def report(loops: list[str], outcomes: dict[str, dict[str, Outcome]], verbose: bool) -> int:
    left_out = {
        name: why for by_loop in outcomes.values() for o in by_loop.values() for name, why in o.left_out.items()
    }
    for loop in loops:
        failures = [failure for by_loop in outcomes.values() for failure in by_loop[loop].failures]
        if failures:
            print(f"\nfailed on {loop}:")
        for name, trace in failures:
            print(f"  {name}: {last_line(trace)}")
            if verbose:
                print("    " + trace.strip().replace("\n", "\n    "))
    if left_out:
        print("\nleft out for every loop:")
        for name, why in left_out.items():
            print(f"  {name}: {why}")
    print(f"\nCPython {sys.version.split()[0]}, test.test_asyncio")
    print_table(loops, outcomes)
    judged = "bolide" if "bolide" in loops else loops[-1]
    passed = sum(by_loop[judged].passed for by_loop in outcomes.values())
    skipped = sum(by_loop[judged].skipped for by_loop in outcomes.values()) + len(left_out)
    failed = sum(len(by_loop[judged].failures) for by_loop in outcomes.values())
    print(f"\n{judged}: {passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


def is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def chosen_loops(asked: Iterable[str] | None) -> list[str]:
    if asked:
        return list(asked)
    loops = [loop for loop in LOOPS if is_there(loop)]
    if "uvloop" not in loops:
        print("uvloop is not installed: left out of the comparison")
    return loops


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--loop", action="append", choices=LOOPS, help="a loop to run on (default: all that are installed)")
    add("--limit", type=float, default=120, help="seconds that a module may take (default: %(default)s)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="modules at a time (default: %(default)s)")
    add("-v", "--verbose", action="store_true", help="print the traceback of each failure")
    add("module", nargs="*", help="test modules (default: all that are about a loop)")
    options = parser.parse_args()
    if not is_there("test.test_asyncio"):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        print(
            f"error: this Python has no test.test_asyncio; Debian's package is libpython{version}-testsuite",
            file=sys.stderr,
        )
        return 2
    unknown = set(options.module) - set(CLASSES)
    if unknown:
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    modules = options.module or [name for name in CLASSES if is_there(f"test.test_asyncio.{name}")]
    loops = chosen_loops(options.loop)
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {
            module: {loop: pool.submit(run_module, loop, module, options.limit) for loop in loops} for module in modules
        }
        outcomes = {module: {loop: job.result() for loop, job in by.items()} for module, by in running.items()}
    return report(loops, outcomes, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
