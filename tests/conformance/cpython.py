#!/usr/bin/env python3
"""Hold event loops against CPython's own asyncio tests: `cpython.py [--loop NAME]... [test module]...`

Runs the test.test_asyncio of the interpreter that runs this, each module in a process and a temporary folder of its
own with a time limit, on asyncio's loop, on uvloop (when it is installed) and on bolide, and prints a table. A crash
or a hang counts as one failure, and the tests that it kept from running are not counted as passed. cpython_skips.py
lists what is left out, for every loop alike. The exit status says whether bolide passed all.

test.test_asyncio is a part of CPython, but some distributions package it apart; Debian's name for it is
libpython3.X-testsuite.
"""

import sys

from cpython_skips import CLASSES
from runner import LOOPS, is_there, parse_arguments, report, run_all, run_child


def main() -> int:
    options = parse_arguments(__doc__.splitlines()[0])
    if not is_there("test.test_asyncio"):
        package = f"libpython{sys.version_info[0]}.{sys.version_info[1]}-testsuite"
        print(f"error: this Python has no test.test_asyncio; Debian's package of it is {package}", file=sys.stderr)
        return 2
    unknown = set(options.module) - set(CLASSES)
    if unknown:
        print(f"error: no such module: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    modules = options.module or [name for name in CLASSES if is_there(f"test.test_asyncio.{name}")]
    outcomes = run_all(
        modules,
        options.loop,
        options.jobs,
        lambda loop, module: run_child("cpython_child.py", [LOOPS[loop], module], options.limit),
    )
    return report(f"CPython {sys.version.split()[0]}, test.test_asyncio", options.loop, outcomes, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
