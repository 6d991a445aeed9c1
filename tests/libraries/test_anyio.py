"""anyio's own test suite with the loop as loop factory, and what anyio does that no other library does."""

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
from support.loops import LOOP, new_event_loop
from support.server import REPOSITORY

anyio = pytest.importorskip("anyio")

# anyio's suite runs each test on a loop that it calls uvloop's: this stands in front of that package.
STAND_IN = """
import types
from {module} import new_event_loop
from {module} import {name} as Loop
loop = types.SimpleNamespace(Loop=Loop)
"""


def test_the_root_task_is_found():
    """anyio knows it by the done-callback of run_until_complete()."""
    from anyio import get_current_task
    from anyio.lowlevel import checkpoint, current_token

    async def main():
        await checkpoint()
        assert current_token()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
        return get_current_task()

    loop = new_event_loop()
    assert loop.run_until_complete(main()).id
    loop.close()
    assert anyio.run(main, backend_options={"loop_factory": new_event_loop}).id


def run_suite(suite, folder, module, tests):
    """Run tests of the suite on the loop of `module`. Returns how many passed, and the names of those that did not."""
    stand_in = folder / f"{module}-stands-in"
    stand_in.mkdir(exist_ok=True)
    if module != "uvloop":
        name = "SelectorEventLoop" if module == "asyncio" else "Loop"
        (stand_in / "uvloop.py").write_text(STAND_IN.format(module=module, name=name))
    path = os.pathsep.join([str(stand_in), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-k", "uvloop", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    command += ["--timeout", "60", "-rfE", *tests]
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(
        command, cwd=suite, env=environment, capture_output=True, text=True, timeout=380, check=False
    )
    assert result.returncode in (0, 1), result.stdout[-3000:] + result.stderr[-3000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    bad = re.findall(r"^(?:FAILED|ERROR) (tests/\S+::.+?\])(?: - .*)?$", result.stdout, re.MULTILINE)
    print(result.stdout[-3000:])
    return int(passed[1]) if passed else 0, set(bad)


@pytest.mark.timeout(400)
def test_its_own_suite(tmp_path):
    """All that passes on asyncio's loop on this machine: without a name service or IPv6, some of it does not."""
    for needed in ("trustme", "psutil", "pytest_mock", "hypothesis"):
        pytest.importorskip(needed)
    sys.path.insert(0, str(REPOSITORY / "tests" / "conformance"))
    try:
        from sources import unpack
    finally:
        sys.path.pop(0)
    suite = unpack("anyio", importlib.metadata.version("anyio"), tmp_path)
    passed, bad = run_suite(suite, tmp_path, LOOP, ["tests"])
    assert passed > 500
    if bad:
        _, bad = run_suite(suite, tmp_path, LOOP, sorted(bad))  # some depend on the threads that earlier ones left
    if bad and LOOP != "asyncio":
        _, bad_elsewhere = run_suite(suite, tmp_path, "asyncio", sorted(bad))
        bad -= bad_elsewhere
    assert bad == set()


def test_its_pytest_plugin(tmp_path):
    """With the fixture that the guide shows."""
    (tmp_path / "test_it.py").write_text(
        f"import asyncio\nimport pytest\nimport anyio\nfrom {LOOP} import new_event_loop\n\n"
        "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio', {'loop_factory': new_event_loop}\n\n"
        "@pytest.mark.anyio\nasync def test_loop():\n    await anyio.sleep(0)\n"
        f"    assert type(asyncio.get_running_loop()).__module__.startswith('{LOOP}')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout
