#!/usr/bin/env python3
"""Hold event loops against uvloop's own tests: `uvloop_suite.py [--loop NAME]... [test module]...`

The suite stands in uvloop's source distribution, which pip fetches and of which nothing is kept in this repository. Its
tests import the loop as `uvloop`: for another loop than that, a package of this name with the loop under test stands in
front. Otherwise as cpython.py; uvloop_skips.py lists what is left out.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from runner import parse_arguments, report, run_all, run_child
from sources import unpack
from uvloop_skips import MODULES

VERSION = "0.23.0"
SHA256 = "28d160f51ab4da3b187063652e643dea6831072add4adc1e6d62afbe73b6be27"

# A package `uvloop` whose loop is another one; {module} is asyncio or bolide.
STAND_IN = """
import asyncio
import {module} as _module
new_event_loop = _module.new_event_loop
run = _module.run
Loop = getattr(_module, "Loop", None) or asyncio.SelectorEventLoop
EventLoopPolicy = getattr(_module, "EventLoopPolicy", None) or asyncio.DefaultEventLoopPolicy
def install():
    asyncio.set_event_loop_policy(EventLoopPolicy())
"""


def make_stand_in(loop: str, suite: Path, folder: Path) -> list[str]:
    """What comes first on the path for `loop`: nothing for uvloop itself."""
    if loop == "uvloop":
        return []
    package = folder / loop / "uvloop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN.format(module=loop))
    shutil.copy(suite / "uvloop" / "_testbase.py", package)
    return [str(folder / loop)]


def main() -> int:
    options = parse_arguments(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory(prefix="bolide-uvloop-suite-") as temporary:
        folder = Path(temporary)
        suite = unpack("uvloop", VERSION, folder, SHA256)
        tests = suite / "tests"
        names = sorted(path.stem for path in tests.glob("test_*.py"))
        modules = options.module or [name for name in names if name not in MODULES]
        paths = {loop: make_stand_in(loop, suite, folder) for loop in options.loop}
        # The sources of uvloop itself must not be found beside its tests.
        shutil.rmtree(suite / "uvloop")
        outcomes = run_all(
            modules,
            options.loop,
            options.jobs,
            lambda loop, module: run_child("uvloop_child.py", [str(tests), module], options.limit, paths[loop]),
        )
    for name, reason in MODULES.items():
        print(f"left out: {name}: {reason}")
    return report(f"the tests of uvloop {VERSION}", options.loop, outcomes, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
