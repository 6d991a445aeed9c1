#!/usr/bin/env python3
"""Hold bolide against uvicorn's own tests: `uvicorn_suite.py [pytest arguments]`

Fetches uvicorn's source distribution, for its tests are in no wheel (see sources.py), and runs its tests with bolide in
uvicorn's place: those of the protocols over sockets (uvicorn_plugin.py), those of the configuration, the lifespan and
the middleware with bolide's own parts (uvicorn_parts_plugin.py), those of the command, the server, the supervisor and
the reloader with those too (uvicorn_processes_plugin.py). What fails has to be in uvicorn_reasons.py with a reason, and
what is there has to fail; what is not so is looked at once more, with more patience.
"""

import sys
import tempfile
from pathlib import Path

import pytest_suites
import sources
from uvicorn_reasons import REASONS

VERSION = "0.54.0"
SUITES = {
    "uvicorn_plugin": [
        "tests/protocols/test_http.py",
        "tests/protocols/test_websocket.py",
        "tests/test_default_headers.py",
    ],
    "uvicorn_parts_plugin": [
        "tests/test_config.py",
        "tests/test_lifespan.py",
        "tests/test_ssl.py",
        "tests/middleware",
        "tests/importer",
    ],
    # Not tests/test_subprocess.py: it is about how uvicorn uses multiprocessing.
    "uvicorn_processes_plugin": [
        "tests/test_cli.py",
        "tests/test_main.py",
        "tests/test_server.py",
        "tests/supervisors",
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


def main() -> int:
    """See the module."""
    pytest_suites.install(NEEDS)
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bolide-conformance-") as folder:
        suite = sources.unpack("uvicorn", VERSION, Path(folder))
        for plugin, tests in SUITES.items():
            outcomes |= pytest_suites.run_twice(plugin, [*tests, *sys.argv[1:]], suite, REASONS)
    return 0 if pytest_suites.report(f"uvicorn {VERSION}", outcomes, REASONS) else 1


if __name__ == "__main__":
    sys.exit(main())
