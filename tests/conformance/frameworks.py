#!/usr/bin/env python3
"""Hold bolide against the tests of Starlette and FastAPI: `frameworks.py [--only NAME] [pytest arguments]`

Fetches the source distributions of both, for their tests are in no wheel (see sources.py), and runs them with their
TestClient on live bolide servers: see live_plugin.py. What fails has to be in frameworks_reasons.py with a reason.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pytest_suites
import sources
from frameworks_reasons import NOT_RUN, REASONS

VERSIONS = {"starlette": "1.10.0", "fastapi": "0.165.0"}
# What the tests import, besides the frameworks themselves.
NEEDS = [
    *(f"{name}=={version}" for name, version in VERSIONS.items()),
    "a2wsgi",
    "anyio",
    "dirty-equals",
    "email-validator",
    "flask",
    "httpx",
    "httpx2",
    "inline-snapshot",
    "itsdangerous",
    "jinja2",
    "logfire",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-instrumentation-fastapi",
    "opentelemetry-sdk",
    "orjson",
    "pwdlib[argon2]",
    "pydantic-extra-types",
    "pydantic-settings",
    "pyjwt",
    "pytest",
    "pytest-timeout",
    "python-multipart",
    "pyyaml",
    "sentry-sdk",
    "sqlmodel",
    "strawberry-graphql",
    "trio",
    "typer",
    "ujson",
    "uvicorn",
]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=VERSIONS, help="one of the two")
    options, rest = parser.parse_known_args()
    pytest_suites.install(NEEDS)
    good = True
    for name in [options.only] if options.only else VERSIONS:
        with tempfile.TemporaryDirectory(prefix="bolide-conformance-") as folder:
            suite = sources.unpack(name, VERSIONS[name], Path(folder))
            tests = ["tests", *(f"--ignore={path}" for path in NOT_RUN[name]), *rest]
            outcomes = pytest_suites.run_twice("live_plugin", tests, suite, REASONS[name])
        good &= pytest_suites.report(f"{name} {VERSIONS[name]}", outcomes, REASONS[name])
        for path, why in NOT_RUN[name].items():
            print(f"  not run: {path}: {why}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
