#!/usr/bin/env python3
"""Hold bolide against uvicorn's own tests: `uvicorn_suite.py [pytest arguments]`

Fetches uvicorn's source distribution, for its tests are in no wheel (see sources.py), and runs its tests with bolide in
uvicorn's place: those of the protocols over sockets (uvicorn_plugin.py), those of the configuration, the lifespan, the
middleware and the server with bolide's own parts (uvicorn_parts_plugin.py). What fails has to be in uvicorn_reasons.py
with a reason, and what is there has to fail; what is not so is looked at once more, with more patience.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import sources
from uvicorn_reasons import REASONS

VERSION = "0.54.0"
HERE = Path(__file__).resolve().parent
SUITES = {
    "uvicorn_plugin": [
        "tests/protocols/test_http.py",
        "tests/protocols/test_websocket.py",
        "tests/test_default_headers.py",
    ],
    "uvicorn_parts_plugin": [
        "tests/test_config.py",
        "tests/test_lifespan.py",
        "tests/test_main.py",
        "tests/test_server.py",
        "tests/test_ssl.py",
        "tests/middleware",
        "tests/importer",
    ],
}
# What uvicorn's tests import, besides uvicorn itself.
NEEDS = [
    f"uvicorn=={VERSION}",
    "a2wsgi",
    "anyio",
    "cryptography",
    "httptools",
    "httpx2",
    "pytest",
    "pytest-mock",
    "pytest-timeout",
    "pyyaml",
    "trustme",
    "watchfiles",
    "websockets",
    "wsproto",
]


def is_explained(name: str) -> bool:
    """Whether uvicorn_reasons.py has this test, with or without its parameters."""
    return name in REASONS or name.partition("[")[0] in REASONS


def judge(outcomes: dict[str, str]) -> dict[str, str]:
    """What is not as uvicorn_reasons.py has it."""
    faults = {}
    for test, outcome in sorted(outcomes.items()):
        function, bracket, parameters = test.partition("[")
        name = function.rpartition("::")[2] + bracket + parameters
        if outcome == "failed" and not is_explained(name):
            faults[test] = "failed"
        elif outcome == "passed" and name in REASONS:
            faults[test] = "passed, and is in uvicorn_reasons.py"
    return faults


def run(plugin: str, tests: list[str], suite: Path, patience: int) -> dict[str, str]:
    """The outcome of each test."""
    with tempfile.TemporaryDirectory(prefix="bolide-conformance-") as folder:
        report = Path(folder) / "report.json"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(suite)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BOLIDE_SUITE_REPORT": str(report),
            "BOLIDE_SUITE_PATIENCE": str(patience),
        }
        command = [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", "-q", "--tb=no"]
        command += [f"--timeout={40 * patience}", "-o", "addopts=", "-o", "filterwarnings=ignore", *tests]
        done = subprocess.run(
            command, cwd=suite, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if not report.is_file():
            raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
        return json.loads(report.read_text())


def run_twice(plugin: str, tests: list[str], suite: Path) -> dict[str, str]:
    """As run(); what is not as expected is run again by itself, on a machine that may be busy."""
    outcomes = run(plugin, tests, suite, patience=1)
    if faults := judge(outcomes):
        outcomes |= run(plugin, list(faults), suite, patience=8)
    return outcomes


def main() -> int:
    """See the module."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *NEEDS], check=True
    )
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bolide-conformance-") as folder:
        suite = sources.unpack("uvicorn", VERSION, Path(folder))
        for plugin, tests in SUITES.items():
            outcomes |= run_twice(plugin, [*tests, *sys.argv[1:]], suite)
    counts = {kind: list(outcomes.values()).count(kind) for kind in ("passed", "failed", "skipped", "apart")}
    faults = judge(outcomes)
    unexplained = list(faults.values()).count("failed")
    print(
        f"uvicorn {VERSION}: {counts['passed']} passed, {counts['failed']} failed, {unexplained} of them without a "
        f"written reason, {counts['skipped']} skipped; {counts['apart']} are not about a server"
    )
    for test, fault in faults.items():
        print(f"  {fault}: {test}")
    return 1 if faults or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
