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
    from anyio.lowlevel import current_token, checkpoint

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


@pytest.mark.timeout(400)
def test_its_own_suite(tmp_path):
    for needed in ("trustme", "psutil", "pytest_mock", "hypothesis"):
        pytest.importorskip(needed)
    sys.path.insert(0, str(REPOSITORY / "tests" / "conformance"))
    try:
        from sources import unpack
    finally:
        sys.path.pop(0)
    suite = unpack("anyio", importlib.metadata.version("anyio"), tmp_path)
    stand_in = tmp_path / "stand-in"
    stand_in.mkdir()
    if LOOP != "uvloop":
        name = "SelectorEventLoop" if LOOP == "asyncio" else "Loop"
        (stand_in / "uvloop.py").write_text(STAND_IN.format(module=LOOP, name=name))
    path = os.pathsep.join([str(stand_in), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-k", "uvloop", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    command += ["--timeout", "60", "-rfE", "tests", *SELECTION]
    result = subprocess.run(
        command, cwd=suite, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=380, check=False
    )
    print(result.stdout[-3000:])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None and int(passed[1]) > 500


SELECTION: list[str] = []
