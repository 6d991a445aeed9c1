#!/usr/bin/env python3
"""Hold bolide against uvicorn's own tests: `uvicorn_suite.py [pytest arguments]`

Fetches uvicorn's source distribution (once, into build/conformance), for its tests are in no wheel, and runs those of
the protocols and of the default headers with bolide in uvicorn's place: see uvicorn_plugin.py. What fails has to be in
uvicorn_reasons.py with a reason, and what is there has to fail. BOLIDE_UVICORN_SDIST names a folder to use instead.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from uvicorn_reasons import REASONS

VERSION = "0.54.0"
HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "conformance"
FILES = ["tests/protocols/test_http.py", "tests/protocols/test_websocket.py", "tests/test_default_headers.py"]
# What uvicorn's tests import, besides uvicorn itself.
NEEDS = [
    f"uvicorn=={VERSION}",
    "httptools",
    "httpx2",
    "websockets",
    "wsproto",
    "trustme",
    "anyio",
    "pytest-mock",
    "a2wsgi",
]


def sources() -> Path:
    """The unpacked source distribution."""
    named = os.environ.get("BOLIDE_UVICORN_SDIST")
    if named:
        return Path(named)
    folder = FOLDER / f"uvicorn-{VERSION}"
    if not folder.is_dir():
        FOLDER.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "uvicorn"]
        subprocess.run([*pip, "--dest", str(FOLDER), f"uvicorn=={VERSION}"], check=True)
        with tarfile.open(FOLDER / f"uvicorn-{VERSION}.tar.gz") as tar:
            tar.extractall(FOLDER, filter="data")
    return folder


def judge(outcomes: dict[str, str]) -> list[str]:
    """What is not as uvicorn_reasons.py has it."""
    faults = []
    for test, outcome in sorted(outcomes.items()):
        name = test.rpartition("::")[2]
        reason = REASONS.get(name) or REASONS.get(name.partition("[")[0])
        if outcome == "failed" and reason is None:
            faults.append(f"failed: {test}")
        elif outcome == "passed" and name in REASONS:
            faults.append(f"passed, and is in uvicorn_reasons.py: {test}")
    return faults


def main() -> int:
    """See the module."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *NEEDS], check=True
    )
    suite = sources()
    report = FOLDER / "uvicorn.json"
    FOLDER.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(suite)]), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["BOLIDE_SUITE_REPORT"] = str(report)
    command = [sys.executable, "-m", "pytest", "-p", "uvicorn_plugin", "-p", "no:cacheprovider", "-q", "--timeout=20"]
    command += ["-o", "addopts=", "-o", "filterwarnings=ignore", "--tb=no", *FILES, *sys.argv[1:]]
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True)
    if not report.is_file():
        print(done.stdout + done.stderr)
        return 2
    outcomes = json.loads(report.read_text())
    counts = {kind: list(outcomes.values()).count(kind) for kind in ("passed", "failed", "skipped", "apart")}
    faults = judge(outcomes)
    print(
        f"uvicorn {VERSION}: {counts['passed']} passed, {counts['failed']} failed, whose reasons are written down, "
        f"{counts['skipped']} skipped; {counts['apart']} are not about a server"
    )
    for fault in faults:
        print(f"  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
