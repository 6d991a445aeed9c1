"""One module of uvloop's test suite on one loop: `uvloop_child.py <suite's tests folder> <test module>`.

Started by uvloop_suite.py with a package named `uvloop` in front of everything else, whose loop is the one under test.
Tells its progress as cpython_child.py does.
"""

import faulthandler
import importlib
import io
import os
import sys
import unittest
import warnings

from cpython_child import Result, names_of, say, tests_in
from uvloop_skips import reason_to_skip


def main() -> None:
    folder, name = sys.argv[1:]
    faulthandler.enable()
    warnings.simplefilter("ignore")
    sys.path.insert(0, os.path.dirname(folder))
    module = importlib.import_module(f"tests.{name}")
    suite = unittest.TestSuite()
    for test in tests_in(unittest.defaultTestLoader.loadTestsFromModule(module)):
        if getattr(test, "implementation", "uvloop") != "uvloop":
            continue  # the same test for asyncio's loop
        test_name = test.id().removeprefix("tests.")
        reason = reason_to_skip(test_name)
        if reason is None:
            suite.addTest(test)
        else:
            say(skipped=test_name, reason=reason)
    result = unittest.TextTestRunner(stream=io.StringIO(), resultclass=Result, verbosity=0).run(suite)
    bad = [[test.removeprefix("tests."), trace] for test, trace in names_of(result.failures + result.errors)]
    say(result={"run": result.testsRun, "skipped": len(result.skipped), "bad": bad})
    os._exit(0)


if __name__ == "__main__":
    main()
